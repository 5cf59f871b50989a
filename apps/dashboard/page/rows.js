// @ts-check
/** The rows of a table. A row is made once; it keeps its place, and so the focus in it, whatever comes and goes around it. */

/** @template E what a row shows @template {{ row: HTMLElement }} R a row and its parts */
export class Rows {
  /** @type {Map<string, R>} */
  #rows = new Map();
  #body;
  #key;
  #make;

  /** @param {HTMLElement} body @param {(entry: E) => string} key @param {(entry: E) => R} make */
  constructor(body, key, make) {
    this.#body = body;
    this.#key = key;
    this.#make = make;
  }

  /** A row for each entry, in this order, to be written. @param {Iterable<E>} entries @returns {[R, E][]} */
  fit(entries) {
    const wanted = new Map([...entries].map((entry) => [this.#key(entry), entry]));
    for (const [key, { row }] of this.#rows) {
      if (wanted.has(key)) continue;
      row.remove();
      this.#rows.delete(key);
    }
    /** @type {ChildNode | null} */
    let place = this.#body.firstChild;
    return [...wanted].map(([key, entry]) => {
      const made = this.#rows.get(key) ?? this.#make(entry);
      this.#rows.set(key, made);
      if (place === made.row) place = place.nextSibling;
      else this.#body.insertBefore(made.row, place);
      return [made, entry];
    });
  }
}
