/** The hub's clock as it is seen from here: ages must be right where the two clocks are not set alike. */
export declare class HubClock {
    #private;
    /** A live message that was published at `at`. @param {number} at Unix milliseconds */
    hear(at: number): void;
    /** Milliseconds since `at`. Until a live message came, both clocks are taken to agree. @param {number} at */
    age_ms(at: number): number;
    /** A new connection: either clock may have been set meanwhile. */
    reset(): void;
}
