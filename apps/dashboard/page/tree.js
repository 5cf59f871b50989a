// @ts-check
/** Topics as a tree: a level of a topic is a node, and every node knows how many topics are below it. */

/** @typedef {import('./latchbus.js').Message} Message */

/** One more is not taken in: a page of this size serves nobody, a narrower filter does. */
export const MAX_TOPICS = 50_000;

const order = new Intl.Collator('en', { numeric: true });

export class TopicNode {
  name;
  /** The topic, or what topics below have in common. @type {string} */
  path;
  /** 1: the first level of its topics. @type {number} */
  level;
  parent;
  /** The value that the topic keeps, or its last event if it keeps none. @type {Message | undefined} */
  message;
  /** Messages of the topic that this page was given: its value at first, and each one after it. */
  updates = 0;
  /** Topics here and below. */
  count = 0;
  /** In the order of display. @type {TopicNode[]} */
  children = [];
  /** @type {Map<string, TopicNode>} */
  #byName = new Map();

  /** @param {string} name @param {TopicNode | undefined} parent */
  constructor(name, parent) {
    this.name = name;
    this.parent = parent;
    this.level = parent ? parent.level + 1 : 0;
    this.path = parent && parent.level > 0 ? `${parent.path}/${name}` : name;
  }

  /** @param {string} name */
  child(name) {
    return this.#byName.get(name);
  }

  /** @param {string} name */
  add(name) {
    const node = new TopicNode(name, this);
    this.#byName.set(name, node);
    this.children.splice(this.#place(name), 0, node);
    return node;
  }

  /** @param {TopicNode} node */
  remove(node) {
    this.#byName.delete(node.name);
    this.children.splice(this.#place(node.name), 1);
  }

  /** Where a name stands or would stand. @param {string} name */
  #place(name) {
    let [low, high] = [0, this.children.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (compare(this.children[middle]?.name ?? '', name) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

export class Tree {
  root = new TopicNode('', undefined);
  /** Topics that were left out at the bound. */
  left = 0;

  get size() {
    return this.root.count;
  }

  /** @param {string} topic */
  find(topic) {
    /** @type {TopicNode | undefined} */
    let node = this.root;
    for (const name of topic.split('/')) node = node?.child(name);
    return node;
  }

  /** Takes in a message. True: the tree has another shape now. @param {Message} message */
  take(message) {
    return message.cleared ? this.#clear(message.topic) : this.#set(message);
  }

  /** @param {Message} message */
  #set(message) {
    const known = this.find(message.topic);
    if (known?.message) {
      known.updates++;
      // An event passes by: it does not hide what is kept.
      if (!message.event || known.message.event) known.message = message;
      return false;
    }
    if (this.size >= MAX_TOPICS) {
      this.left++;
      return false;
    }
    let node = this.root;
    node.count++;
    for (const name of message.topic.split('/')) {
      node = node.child(name) ?? node.add(name);
      node.count++;
    }
    node.message = message;
    node.updates = 1;
    return true;
  }

  /** @param {string} topic */
  #clear(topic) {
    const found = this.find(topic);
    if (!found?.message) return false;
    found.message = undefined;
    found.updates = 0;
    for (let node = /** @type {TopicNode | undefined} */ (found); node; node = node.parent) {
      node.count--;
      if (node.count === 0) node.parent?.remove(node);
    }
    return true;
  }

  /** What can be seen with these branches open, from top to bottom. @param {Set<string>} open paths */
  rows(open) {
    /** @type {TopicNode[]} */
    const rows = [];
    /** @param {TopicNode} node */
    const walk = (node) => {
      for (const child of node.children) {
        rows.push(child);
        if (child.children.length > 0 && open.has(child.path)) walk(child);
      }
    };
    walk(this.root);
    return rows;
  }

  /** The branches to open, level by level, so that no more than so many rows can be seen. @param {number} rows */
  branchesWithin(rows) {
    /** @type {Set<string>} */
    const open = new Set();
    let left = rows - this.root.children.length;
    const waiting = [...this.root.children];
    for (const node of waiting) {
      if (node.children.length === 0 || node.children.length > left) continue;
      open.add(node.path);
      left -= node.children.length;
      waiting.push(...node.children);
    }
    return open;
  }

  /** The paths of all branches. */
  branches() {
    /** @type {Set<string>} */
    const paths = new Set();
    const waiting = [this.root];
    for (let node = waiting.pop(); node; node = waiting.pop()) {
      for (const child of node.children) {
        if (child.children.length === 0) continue;
        paths.add(child.path);
        waiting.push(child);
      }
    }
    return paths;
  }
}

/**
 * The hub's own `$…` last, numbers by their value; names that look alike to people still differ.
 * @param {string} a @param {string} b
 */
function compare(a, b) {
  const own = Number(a.startsWith('$')) - Number(b.startsWith('$'));
  return own || order.compare(a, b) || (a < b ? -1 : a > b ? 1 : 0);
}
