// @ts-check
/** A question before something that takes effect at once. */
import { make } from './dom.js';

/** @type {Question | undefined} */
let question;

class Question {
  #dialog = make('dialog');
  #title = make('h2');
  #text = make('p');
  #yes = make('button', 'pill');

  constructor() {
    const no = make('button', 'pill', 'Cancel');
    const answers = make('div', 'operate');
    answers.append(no, this.#yes);
    for (const [id, node] of Object.entries({ ask: this.#dialog, 'ask-title': this.#title, 'ask-text': this.#text })) node.id = id;
    for (const [id, button] of Object.entries({ no, yes: this.#yes })) {
      button.id = `ask-${id}`;
      button.type = 'button';
      button.addEventListener('click', () => this.#dialog.close(id));
    }
    this.#dialog.setAttribute('aria-labelledby', 'ask-title');
    this.#dialog.setAttribute('aria-describedby', 'ask-text');
    this.#dialog.append(this.#title, this.#text, answers);
    document.body.append(this.#dialog);
  }

  /** @param {string} verb @param {string} name @param {string} text @param {string} yes @returns {Promise<boolean>} */
  async ask(verb, name, text, yes) {
    // A name that somebody has chosen does not turn the words around it.
    this.#title.replaceChildren(`${verb} `, make('bdi', '', name), '?');
    this.#text.textContent = text;
    this.#yes.textContent = yes;
    this.#dialog.returnValue = '';
    this.#dialog.showModal();
    await new Promise((resolve) => this.#dialog.addEventListener('close', resolve, { once: true }));
    return this.#dialog.returnValue === 'yes';
  }
}

/**
 * Whether it is meant: `Remove kiosk-1?`
 * @param {string} verb @param {string} name @param {string} text what comes of it @param {string} yes the button that does it
 */
export function ask(verb, name, text, yes) {
  question ??= new Question();
  return question.ask(verb, name, text, yes);
}
