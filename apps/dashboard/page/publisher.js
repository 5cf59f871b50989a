// @ts-check
/** The form that publishes. */
import { attribute, element, elementOf, show } from './dom.js';
import { topicProblem } from './filter.js';
import { whole } from './format.js';
import { problemOf } from './inspector.js';
import { hexOf, parse, textOf } from './payload.js';

/** @typedef {import('./payload.js').View} View */
/** @typedef {{ isHex: boolean, shown: string, payload: Uint8Array }} Copy */

export class Publisher {
  #topic = elementOf('publish-topic', HTMLInputElement);
  #payload = elementOf('publish-payload', HTMLTextAreaElement);
  #isKept = elementOf('publish-retain', HTMLInputElement);
  /** What was put into the form, which a text area does not give back as it was (line breaks). @type {Copy | undefined} */
  #copy;
  #bus;

  /** @param {import('./latchbus.js').Bus} bus */
  constructor(bus) {
    this.#bus = bus;
    element('publish').addEventListener('submit', (event) => {
      event.preventDefault();
      void this.#publish();
    });
  }

  /**
   * Fills in the form. Unless it is edited there, what is then published is this payload, byte for byte.
   * @param {string} topic @param {View} view @param {Uint8Array} payload
   */
  edit(topic, view, payload) {
    const text = view === 'hex' ? undefined : textOf(payload);
    const isHex = text === undefined;
    this.#topic.value = topic;
    this.#payload.value = text ?? hexOf(payload);
    this.#copy = { isHex, shown: this.#payload.value, payload };
    this.#isKept.checked = true;
    elementOf(`publish-${isHex ? 'hex' : view}`, HTMLInputElement).checked = true;
    this.#say('', false);
    this.#payload.focus();
  }

  async #publish() {
    const topic = this.#topic.value;
    const retain = this.#isKept.checked;
    const view = ['json', 'text', 'hex'].find((each) => elementOf(`publish-${each}`, HTMLInputElement).checked);
    const problem = topicProblem(topic);
    if (problem) return this.#say(problem, true, this.#topic);
    const parsed = parse(/** @type {View} */ (view), this.#payload.value);
    if ('problem' in parsed) return this.#say(parsed.problem, true, this.#payload);
    const value = this.#original(view === 'hex') ?? parsed.value;
    if (retain && value.length === 0) {
      return this.#say('Nothing, kept, would clear the topic: “Clear” does that.', true, this.#payload);
    }
    try {
      const { rev } = await this.#bus.publish(topic, value, { retain });
      this.#say(`Published ${topic} at revision ${whole(rev)}.`, false);
    } catch (error) {
      this.#say(problemOf(error), true);
    }
  }

  /** The copy that is in the form, if nobody has edited it. @param {boolean} isHex */
  #original(isHex) {
    const isUntouched = this.#copy?.isHex === isHex && this.#copy.shown === this.#payload.value;
    return isUntouched ? this.#copy?.payload : undefined;
  }

  /** @param {string} text @param {boolean} isProblem @param {HTMLElement} [field] that is at fault */
  #say(text, isProblem, field) {
    show('publish-outcome', text);
    attribute(element('publish-outcome'), 'data-problem', isProblem ? '' : undefined);
    for (const each of [this.#topic, this.#payload]) attribute(each, 'aria-invalid', each === field ? 'true' : undefined);
    field?.focus();
  }
}
