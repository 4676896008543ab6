// What every client of the matrix has: a log of what happened to it.
//
// A client joins one topic by itself, and again whenever its connection was lost. Its log has
//
//   { did: "open", transport }           { did: "close", code }        { did: "fault", text }
//   { did: "join" }                      { did: "left" }
//   { did: "hear", payload }             { did: "reply", status, response }
//   { did: "enter", key, before, metas } { did: "gone", key, left }    { did: "sync", present }
//
// and it can `push(event, payload)`, `leave()`, `join()` anew, and `stop()`.

export const EVENT = "msg";

export class Client {
  log = [];

  all(did, key) {
    return this.log.filter((entry) => entry.did === did && (!key || entry.key === key));
  }

  /** What happens next of this kind: a function that gives it once it has. */
  next(did, key) {
    const before = this.all(did, key).length;
    return () => this.all(did, key)[before];
  }

  heard(id) {
    return this.all("hear").filter(({ payload }) => payload.id === id).length;
  }

  /** How often each key is present, by what the client knows. */
  get present() {
    return this.all("sync").at(-1)?.present;
  }
}

/** Follows a channel's presences, and says what `Presence` of phoenix.js says of them. */
export function follow(Presence, channel, say) {
  const presence = new Presence(channel);
  presence.onJoin((key, before, { metas }) => say({ did: "enter", key, before: before?.metas.length ?? 0, metas }));
  presence.onLeave((key, { metas }) => say({ did: "gone", key, left: metas.length }));
  presence.onSync(() => {
    say({ did: "sync", present: Object.fromEntries(presence.list((key, { metas }) => [key, metas.length])) });
  });
}
