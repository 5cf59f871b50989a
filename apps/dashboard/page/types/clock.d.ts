/** The hub's clock as it is seen from here: ages must be right where the two clocks are not set alike. */
export declare class HubClock {
    #private;
    /** A state of the connection. @param {import('./latchbus.js').State} state */
    observe({ phase, offset_ms }: import('./latchbus.js').State): void;
    /** A live message that was published at `at`. @param {number} at Unix milliseconds */
    hear(at: number): void;
    /** Milliseconds since `at`. Until the hub has said its time, both clocks are taken to agree. @param {number} at */
    age_ms(at: number): number;
}
