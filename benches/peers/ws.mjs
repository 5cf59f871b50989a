// A peer: the `ws` package. `node ws.mjs PORT` passes each message on to the topic's subscribers;
// `node ws.mjs PORT MS` counts messages and tells the total every MS milliseconds when it has changed.
import { WebSocketServer } from 'ws';

const [port, tick] = process.argv.slice(2).map(Number);
const topics = new Map();
let count = 0;
let told = 0;
const send = (topic, text) => {
  for (const socket of topics.get(topic) ?? []) if (socket.readyState === 1) socket.send(text);
};

const server = new WebSocketServer({ host: '127.0.0.1', port, backlog: 4096 });
server.on('connection', (socket) => {
  let joined;
  socket.on('message', (text) => {
    const { op, topic, data } = JSON.parse(text);
    if (op === 'sub') {
      joined = topic;
      if (!topics.has(topic)) topics.set(topic, new Set());
      topics.get(topic).add(socket);
    } else if (tick) {
      count += 1;
    } else {
      send(topic, JSON.stringify({ topic, data }));
    }
  });
  socket.on('close', () => topics.get(joined)?.delete(socket));
  socket.on('error', () => {});
});
if (tick) {
  setInterval(() => {
    if (count !== told) send('bench', JSON.stringify({ topic: 'bench', count: (told = count) }));
  }, tick);
}
