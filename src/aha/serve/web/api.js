// The server: JSON in and out, and chats as streams of server-sent events.

async function refuse(response) {
  let message = `the server answered ${response.status}`;
  try {
    message = (await response.json()).error.message;
  } catch {
    // not our server's words: its status has to do
  }
  throw new Error(message);
}

export async function get(path) {
  const response = await fetch(path);
  return response.ok ? response.json() : refuse(response);
}

export async function post(path, body, signal) {
  const response = await send(path, body, signal);
  return response.json();
}

async function send(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  return response.ok ? response : refuse(response);
}

/** Yields the chunks of a streamed chat. Throws what the server says when something goes wrong on the way. */
export async function* chat(request, signal) {
  const response = await send("/v1/chat/completions", { ...request, stream: true }, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the server ended the answer early");
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.slice("data: ".length);
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      yield chunk;
    }
  }
}
