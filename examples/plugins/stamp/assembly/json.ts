// As much of JSON as a plugin without dependencies needs: the text of a member, as it stands.

/** The value of a member of an object, as it is written; empty without one. The text has to be valid JSON, as every message is. */
export function find(object: string, name: string): string {
  let at = skip(object, 1);
  while (at < object.length && object.charAt(at) == '"') {
    const nameEnd = end(object, at);
    const found = object.substring(at + 1, nameEnd - 1);
    // Over the colon.
    const value = skip(object, skip(object, nameEnd) + 1);
    const valueEnd = end(object, value);
    if (found == name) return object.substring(value, valueEnd);
    // Over the comma.
    at = skip(object, skip(object, valueEnd) + 1);
  }
  return "";
}

/** The place of the next character that is no white space. */
function skip(text: string, from: i32): i32 {
  let at = from;
  while (at < text.length && text.charCodeAt(at) <= 0x20) at++;
  return at;
}

/** Where the value that begins there ends. */
function end(text: string, from: i32): i32 {
  let depth = 0;
  let inString = false;
  for (let at = from; at < text.length; at++) {
    const letter = text.charAt(at);
    if (inString) {
      if (letter == "\\") at++;
      else if (letter == '"') inString = false;
      if (!inString && depth == 0) return at + 1;
      continue;
    }
    if (letter == '"') inString = true;
    else if (letter == "{" || letter == "[") depth++;
    else if (letter == "}" || letter == "]") {
      // A number, true, false or null ends before what is not its own.
      if (depth == 0) return at;
      if (--depth == 0) return at + 1;
    } else if (depth == 0 && (letter == "," || letter == ":" || text.charCodeAt(at) <= 0x20)) return at;
  }
  return text.length;
}
