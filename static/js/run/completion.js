// A completion as the chat template writes it: `<think>REASONING</think>ANSWER`.

/** What was thought and what was answered. */
export function parts(text) {
  const match = /^\s*<think>([\s\S]*?)(?:<\/think>([\s\S]*))?$/.exec(text);
  return match ? [match[1].trim(), (match[2] ?? "").trim()] : ["", text.trim()];
}
