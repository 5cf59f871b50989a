// A peer: Socket.IO with its rooms. `node socketio.mjs PORT` passes each message on to the room of its topic;
// `node socketio.mjs PORT MS` counts messages and tells the total every MS milliseconds when it has changed.
import { createServer } from 'node:http';
import { Server } from 'socket.io';

const [port, tick] = process.argv.slice(2).map(Number);
const http = createServer();
const io = new Server(http);
let count = 0;
let told = 0;
io.on('connection', (socket) => {
  socket.on('sub', (topic) => socket.join(topic));
  socket.on('pub', (topic, data) => {
    if (tick) count += 1;
    else io.to(topic).emit('msg', data);
  });
});
if (tick) {
  setInterval(() => {
    if (count !== told) io.to('bench').emit('msg', { count: (told = count) });
  }, tick);
}
http.listen({ host: '127.0.0.1', port, backlog: 4096 });
