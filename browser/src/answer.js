// Logits -> findings with scores, calibrated probabilities and calls, as answer_cxrfpn.py and thresholds_cxrfpn.py do it.

/** Return the score of 0 to 1 of a logit of any size. */
export function sigmoid(value) {
  return value >= 0 ? 1 / (1 + Math.exp(-value)) : Math.exp(value) / (1 + Math.exp(value));
}

// A probability of 1 would leave no room for the others, and has no logit.
const NEAREST_TO_ONE = 1 - 1e-7;
const ANY_FINDING = "any_finding";

const calibrated = ({ slope, intercept }, logit) => sigmoid(slope * logit + intercept);

/** Return the calibrated probability of 0 to 1 (Platt, 1999); null for a finding that was not calibrated. */
export function probability(thresholds, finding, logit) {
  const fit = thresholds.calibration[finding];
  return fit === undefined ? null : calibrated(fit, logit);
}

/** Return "present", "absent" or "uncertain" by conformal prediction; null where there are no limits for the finding. */
export function threeWayCall(thresholds, finding, score) {
  const limits = thresholds.conformal.limits?.[finding];
  if (limits === undefined) return null;
  const [mayBePresent, mayBeAbsent] = [score >= limits.present_from, score <= limits.absent_up_to];
  if (mayBePresent === mayBeAbsent) return "uncertain";
  return mayBePresent ? "present" : "absent";
}

/**
 * Answer whether a radiograph has any of the findings, in the form of a finding's answer (noisy or; Pearl, 1988).
 *
 * @param logits {finding: logit}.
 * @returns {?object} null where thresholds.json does not say.
 */
export function answerAny(logits, thresholds, operatingPoint = thresholds.default) {
  const fitted = thresholds.any_finding;
  if (fitted.thresholds === undefined) return null;
  const noneThere = Object.entries(thresholds.calibration)
    .reduce((sum, [finding, fit]) => sum + Math.log1p(-Math.min(calibrated(fit, logits[finding]), NEAREST_TO_ONE)), 0);
  const score = -Math.expm1(noneThere);
  const nearest = Math.min(Math.max(score, 1 - NEAREST_TO_ONE), NEAREST_TO_ONE);
  const threshold = fitted.thresholds[operatingPoint];
  return {
    label: ANY_FINDING, score, probability: calibrated(fitted.calibration, Math.log(nearest / (1 - nearest))), threshold,
    positive: score >= threshold, call: threeWayCall(thresholds, ANY_FINDING, score),
  };
}

/**
 * Turn the logits of one radiograph into its findings, the highest score first.
 *
 * @param thresholds of thresholds.json in its full form: default, operating_points, calibration, any_finding, conformal.
 * @param operatingPoint one of its own; null for the default.
 * @param maps [finding] of maps, or null.
 */
export function makeAnswer(logits, findings, thresholds, operatingPoint = null, maps = null) {
  const chosen = thresholds.operating_points[operatingPoint ?? thresholds.default];
  const answers = findings.map((label, index) => {
    const score = sigmoid(logits[index]);
    const finding = {
      label, score, probability: probability(thresholds, label, logits[index]), threshold: chosen[label], positive: score >= chosen[label],
      call: threeWayCall(thresholds, label, score),
    };
    return maps === null ? finding : { ...finding, map: maps[index] };
  });
  return answers.sort((one, other) => other.score - one.score);
}
