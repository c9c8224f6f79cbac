// The axes of parallel coordinates out of a comparison: settings that differ, then results. Numbers lie where they are between
// the least and the most; words lie evenly in the order of the alphabet.
import { number } from "../run/words.js";

const MOST_FIRST = 6; // settings that are drawn before anybody has chosen

/** Axes of {key, title, values (one a run), ends [least, most] in words, words(index), first (drawn by itself)}. */
export function axesOf({ settings, measures, titles }) {
  return [
    ...settings.map(({ path, values }, i) => axis(path, path.split(".").slice(-2).join(" "), values, i < MOST_FIRST)),
    ...measures.map(({ name, better, values }) => axis(name, titles?.[name] ?? name, values.map((v) => (v === null ? null : better ? v.best : v.last)), better !== "")),
  ];
}

/** The place of each run on an axis, from 0 to 1; null where it has no value. */
export function places({ values, order }) {
  const at = order ? values.map((v) => (v === null ? null : order.indexOf(v))) : values;
  const known = at.filter((v) => v !== null);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  return at.map((v) => (v === null ? null : high > low ? (v - low) / (high - low) : 0.5));
}

function axis(key, title, given, first) {
  const isNumber = given.every((v) => v === null || typeof v === "number");
  const values = isNumber ? given : given.map((v) => (v === null ? null : typeof v === "string" ? v : JSON.stringify(v)));
  const known = [...new Set(values.filter((v) => v !== null))].sort(isNumber ? (a, b) => a - b : undefined);
  const say = (v) => (v === null || v === undefined ? "not set" : isNumber ? number(v) : v);
  return { key, title, values, order: isNumber ? null : known, first, words: (i) => say(values[i]),
    ends: known.length > 1 ? [say(known[0]), say(known.at(-1))] : ["", say(known[0])] };
}
