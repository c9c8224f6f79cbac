// Numbers as people read them here: thin spaces between thousands, a true minus, few figures.
const THIN = "\u202f";

export function number(value, figures = 4) {
  if (value === null || value === undefined) return "no number";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e9) return value.toExponential(figures - 2).replace("e+", "e").replaceAll("-", "−");
  const digits = Math.max(0, figures - 1 - Math.floor(Math.log10(size)));
  const [whole, part] = size.toFixed(Math.min(digits, 6)).split(".");
  const tail = (part ?? "").replace(/0+$/, "");
  return `${value < 0 ? "−" : ""}${whole.replace(/\B(?=(\d{3})+$)/g, THIN)}${tail ? `.${tail}` : ""}`;
}

export function percent(fraction, digits = 1) {
  return fraction === null || fraction === undefined ? "–" : `${(fraction * 100).toFixed(digits)} %`;
}

export function signed(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;
}
