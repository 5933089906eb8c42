// Stamps what functions are called with: a header for `http` events, a member of the data for others that are objects. What is
// written there says the setting `stamp`.
//
// Built by scripts/plugins.sh, or by hand: npm install && npm run build

import { find } from "./json";

/** Where the node puts a message. Each call has an instance of its own, so nothing needs to be freed. */
export function hearth_alloc(length: i32): usize {
  return heap.alloc(length);
}

/** What this plugin takes part in. */
export function hearth_hooks(): u64 {
  return answer('[{"stage":"gateway.function.invoking","mode":"sync"}]');
}

/** Takes a message and answers it. */
export function hearth_handle(message: usize, length: i32): u64 {
  return answer(handle(String.UTF8.decodeUnsafe(message, length)));
}

function handle(message: string): string {
  const settings = find(message, "settings");
  let stamp = find(settings, "stamp");
  if (stamp == "") stamp = '"hearth"';
  const event = find(find(message, "about"), "event");
  const data = find(event, "data");
  if (find(event, "event") == '"http"') {
    const headers = find(data, "headers");
    return '{"data":{"headers":' + added(headers, '"X-Stamp"', stamp) + "}}";
  }
  // Data that is no object is left as it is.
  if (!data.startsWith("{")) return "";
  return '{"data":' + added(data, '"stamp"', stamp) + "}";
}

/** An object with one more member before its others. */
function added(object: string, name: string, value: string): string {
  const rest = object.substring(1).trimStart();
  const comma = rest == "}" ? "" : ",";
  return "{" + name + ":" + value + comma + rest;
}

/** Hands a text to the node: its place in the upper half, its length in the lower one. */
function answer(text: string): u64 {
  const bytes = String.UTF8.encode(text);
  return ((changetype<usize>(bytes) as u64) << 32) | (bytes.byteLength as u64);
}
