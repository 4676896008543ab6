// What happened to a group of clients, in figures.

// A message counts as missed while joined only when the client was joined from before it was sent until this long
// after it was acknowledged: what is on its way to a socket that closes is what "while moving" means.
const IN_FLIGHT_MS = 500;

export function byNode(clients) {
  const counts = {};
  for (const { node } of clients) if (node !== null) counts[node] = (counts[node] ?? 0) + 1;
  return counts;
}

function quantile(values, q) {
  if (values.length === 0) return 0;
  const sorted = [...values].sort((a, b) => a - b);
  return Math.round(sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]);
}

function tally(values) {
  const counts = {};
  for (const value of values) counts[value] = (counts[value] ?? 0) + 1;
  return counts;
}

function deliveries(clients, publishers) {
  const figures = { expected: 0, missedWhileJoined: 0, missedWhileMoving: 0, duplicates: 0, paths: {}, examples: [] };
  for (const client of clients) {
    for (const count of client.receipts.values()) figures.duplicates += count - 1;
    const first = client.joins[0]?.at ?? Infinity;
    for (const { sent } of publishers) {
      for (const { id, by, from, to } of sent) {
        if (from < first) continue;
        figures.expected += 1;
        if (client.receipts.has(id)) continue;
        if (client.joinedThrough(from, to + IN_FLIGHT_MS)) {
          figures.missedWhileJoined += 1;
          const { joins, closes } = client;
          const path = `${by} to ${joins.findLast(({ at }) => at <= from).node}`;
          const seen = (figures.paths[path] ??= { count: 0, first: from, last: to });
          Object.assign(seen, { count: seen.count + 1, last: to });
          if (figures.examples.length < 5) figures.examples.push({ client: client.index, id, from, to, joins, closes });
        } else figures.missedWhileMoving += 1;
      }
    }
  }
  return figures;
}

export function report(group, publishers, replicas) {
  const { clients, samples } = group;
  const away = clients.flatMap((client) => client.away);
  const moves = clients.map((client) => client.joins.length - 1);
  const mean = clients.length / Math.max(1, replicas);
  const highest = (counts) => Math.max(0, ...Object.values(counts));
  const peak = samples.reduce((most, { counts }) => Math.max(most, highest(counts)), 0);
  const closesByNode = {};
  for (const { node, at } of clients.flatMap((client) => client.closes)) {
    if (node !== null) (closesByNode[node] ??= []).push(at);
  }
  return {
    clients: clients.length,
    joined: clients.filter((client) => client.node !== null).length,
    byNode: byNode(clients),
    moves: { mean: moves.reduce((a, b) => a + b, 0) / Math.max(1, moves.length), counts: tally(moves) },
    closeCodes: tally(clients.flatMap((client) => client.closes.map(({ code }) => code))),
    away: { p50: quantile(away, 0.5), p99: quantile(away, 0.99), max: quantile(away, 1) },
    deliveries: deliveries(clients, publishers),
    caughtUp: clients.reduce((sum, client) => sum + client.caughtUp, 0),
    // When clients were back, in order: the first join is none.
    rejoins: clients.flatMap(({ joins }) => joins.slice(1).map(({ at }) => Math.round(at))).sort((a, b) => a - b),
    peakOverMean: { start: highest(group.atStart) / mean, during: peak / mean },
    closesByNode,
    errors: tally(clients.flatMap((client) => client.errors)),
    samples: samples.map(({ at, counts }) => ({ at: Math.round(at), ...counts })),
  };
}
