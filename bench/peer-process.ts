/** A process of a peer, bench/programs/NAME.ts, run by the Node.js of bench/node_modules, which is new enough for it. */
import { type ChildProcess, fork } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { join } from 'node:path';
import type { Reply, Request } from './programs/channel.ts';
import { root, stopProcess } from './support.ts';

const NODE = join(root, 'bench', 'node_modules', 'node', 'bin', 'node');

export class PeerProcess {
  readonly pid: number;
  readonly #child: ChildProcess;
  readonly #events = new EventEmitter();
  #requests = 0;
  #ended: Error | undefined;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.pid = child.pid ?? 0;
    this.#events.setMaxListeners(0);
    child.on('message', (message: Reply) => {
      if ('answer' in message) this.#events.emit(`answer ${message.answer}`, message.result);
      else if ('ran' in message) this.#events.emit(`ran ${message.ran}`);
      else this.#events.emit('ready');
    });
    child.once('exit', (code, signal) => {
      this.#ended = new Error(`process ${this.pid} of a peer ended: ${signal ?? `exit code ${code}`}`);
      // Whoever waits for an event is told; there is not always somebody.
      if (this.#events.listenerCount('error') > 0) this.#events.emit('error', this.#ended);
    });
  }

  /** Resolves when it is ready to work. */
  static async start(program: string, options: { url: string } & Record<string, unknown>): Promise<PeerProcess> {
    const path = join(root, 'bench', 'programs', `${program}.ts`);
    const execArgv = ['--disable-warning=ExperimentalWarning'];
    const child = fork(path, [JSON.stringify(options)], { execPath: NODE, execArgv });
    const peer = new PeerProcess(child);
    await once(peer.#events, 'ready');
    return peer;
  }

  async ask<Result>(name: string, argument: unknown): Promise<Result> {
    if (this.#ended) throw this.#ended;
    this.#requests += 1;
    const request: Request = { id: this.#requests, name, argument };
    const answered = once(this.#events, `answer ${request.id}`);
    this.#child.send(request);
    const [result] = await answered;
    return result as Result;
  }

  /** Resolves when the job with that id has run its statement. */
  async ran(id: number): Promise<void> {
    if (this.#ended) throw this.#ended;
    await once(this.#events, `ran ${id}`);
  }

  stop(): Promise<void> {
    return stopProcess(this.#child);
  }
}
