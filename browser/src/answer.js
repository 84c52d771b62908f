// Logits -> findings with scores, calibrated probabilities and calls, as answer_cxrfpn.py and thresholds_cxrfpn.py do it.

/** Return the score of 0 to 1 of a logit of any size. */
export function sigmoid(value) {
  return value >= 0 ? 1 / (1 + Math.exp(-value)) : Math.exp(value) / (1 + Math.exp(value));
}

/** Return the calibrated probability of 0 to 1 (Platt, 1999); null for a finding that was not calibrated. */
export function probability(thresholds, finding, logit) {
  const fit = thresholds.calibration?.[finding];
  return fit === undefined ? null : sigmoid(fit.slope * logit + fit.intercept);
}

/**
 * Turn the logits of one radiograph into its findings, the highest score first.
 *
 * @param thresholds the content of thresholds.json, in its full form.
 * @param operatingPoint one of its own; null for the default.
 * @param maps [finding] of maps, or null.
 */
export function makeAnswer(logits, findings, thresholds, operatingPoint = null, maps = null) {
  const chosen = thresholds.operating_points[operatingPoint ?? thresholds.default];
  const answers = findings.map((label, index) => {
    const score = sigmoid(logits[index]);
    const finding = {
      label, score, probability: probability(thresholds, label, logits[index]), threshold: chosen[label], positive: score >= chosen[label],
    };
    return maps === null ? finding : { ...finding, map: maps[index] };
  });
  return answers.sort((one, other) => other.score - one.score);
}
