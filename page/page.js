'use strict';
// The page: what it knows of the daemon, how it hears of that, and where it shows it.
// One stream of events brings all that changes; a list and a single push are asked for
// when somebody looks at them, and again when the stream may have left something out.

const pageSize = 50; // rows of a list, and so the most that stand in the document
const silence = 6000; // ms without an event, of which there is one a second, after which a stream is given up
const patience = 3000; // ms without an answer, after which that is said
const unseen = 60000, between = 30000; // ms that a page is out of sight before it only looks now and then, and between two looks

// ---- What is known.

const known = {
  status: undefined, // the last of these events, with the moment at which it came, by ticks(), as .came
  history: undefined,
  lost: undefined, // since when there is no stream (Date), or undefined
  next: 0, // when it is tried again, by ticks()
  locked: false, // a token is wanted
  token: undefined, // that the daemon took last
};

// ticks are milliseconds that go on whatever happens to this computer's clock.
const ticks = () => performance.now();

// now is the daemon's time in milliseconds, so that ages are right whatever this clock says.
function now() {
  return known.status ? Date.parse(known.status.at) + (ticks() - known.status.came) : Date.now();
}

const since = (moment) => (now() - Date.parse(moment)) / 1000;

// lastHeard is when the daemon was heard last, as a Date.
const lastHeard = () => new Date(known.status?.at ?? Date.now());

// ---- Asking.

// Refusal is an answer of the daemon that says no.
class Refusal extends Error {
  constructor(status, problem) {
    super(capital(plain(problem.detail || problem.code)));
    this.status = status;
  }
}

// Stranger is an answer that is not the daemon's.
class Stranger extends Error {
  constructor(status) {
    super('What answered is not s3daemon (HTTP ' + status + ').');
  }
}

// root is the address that the paths of the API are below: that of this document, which
// somebody may have asked a proxy for without the slash behind it.
const root = location.origin + location.pathname.replace(/\/?$/, '/');
for (const link of document.querySelectorAll('footer a')) link.href = root + link.getAttribute('href');

let token = '';
try {
  token = sessionStorage.getItem('s3daemon.token') ?? '';
} catch { /* where nothing may be kept, it is asked for again */ }

// ask asks the daemon and returns its answer, or throws a Refusal, a Stranger or, where
// there is no answer, an Error. The mode stays that of fetch: in others a browser hides the origin, by which the daemon
// knows its own page. An answer that does not come for half a minute is none.
async function ask(method, path, signal = AbortSignal.timeout(30000)) {
  const shown = token, headers = shown ? {Authorization: 'Bearer ' + shown} : {};
  let answer;
  try {
    answer = await fetch(root + path, {method, headers, signal, cache: 'no-store', credentials: 'omit', redirect: 'error'});
  } catch {
    throw new Error('The daemon does not answer.');
  }
  if (answer.ok) return answer;
  const problem = await contentOf(answer);
  if (typeof problem.code !== 'string') throw new Stranger(answer.status);
  const refusal = new Refusal(answer.status, problem);
  if (refusal.status === 401 && shown === token) wantToken(refusal); // else there is another by now
  throw refusal;
}

// contentOf returns the object that an answer of the daemon is.
async function contentOf(answer) {
  let content;
  try {
    content = await answer.json();
  } catch { /* then it is none */ }
  if (typeof content !== 'object' || content === null) throw new Stranger(answer.status);
  return content;
}

// tell asks, and returns what the answer tells. Where that takes long, target says so.
async function tell(method, path, target) {
  const words = 'The daemon has not answered yet. If many tabs watch it, close some: a browser lets five or six at once.';
  const timer = setTimeout(() => say(target, words), patience);
  try {
    return await contentOf(await ask(method, path));
  } finally {
    clearTimeout(timer);
    if (target.textContent === words) say(target, '');
  }
}

// ---- The stream of events.

let wake = () => {}; // ends a pause of watch
let stream = new AbortController(); // of the stream

// A page that nobody sees any more has its title and its icon right, and leaves the
// connection, of which a browser makes few to one place, to those that are seen.
let hidden; // since when it is not seen, by ticks()
const resting = () => hidden !== undefined && ticks() - hidden > unseen;
function sight() {
  hidden = document.hidden ? ticks() : undefined;
  if (!document.hidden && !known.locked) wake();
}
document.addEventListener('visibilitychange', sight);
sight();

// watch follows the stream for ever, with pauses that grow while there is none.
async function watch() {
  for (let failures = 0; ; failures++) {
    const begun = ticks();
    let reason, rests = false;
    try {
      rests = await follow(begun);
    } catch (error) {
      reason = error;
    }
    if (known.status?.came >= begun) failures = 0;
    if (!rests) known.lost ??= lastHeard();
    const wait = known.locked ? Infinity : rests ? between : Math.min(1000 * 2 ** failures, 15000);
    known.next = ticks() + wait;
    if (!rests) drawVerdict(reason);
    await new Promise((resolve) => {
      wake = resolve;
      if (wait !== Infinity) setTimeout(resolve, wait);
    });
  }
}

// follow reads one stream to its end, or, and returns true then, until it has told how
// the daemon is to a page that rests.
async function follow(begun) {
  stream = new AbortController();
  let timer;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => stream.abort(), silence);
  };
  heard();
  try {
    const answer = await ask('GET', 'events', stream.signal);
    if (!answer.headers.get('Content-Type')?.startsWith('text/event-stream')) throw new Stranger(answer.status);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '', last;
    for (;;) {
      const {value, done} = await reader.read();
      if (done) return false;
      heard();
      rest += value;
      for (let end; (end = rest.indexOf('\n\n')) >= 0; rest = rest.slice(end + 2)) {
        last = take(rest.slice(0, end), last);
      }
      if (resting() && known.status?.came >= begun) return true;
    }
  } finally {
    clearTimeout(timer);
    stream.abort();
  }
}

// take takes one event, and returns the number of its frame. Where that is not the one
// after the last, frames were left out, or the stream is a new one.
function take(text, last) {
  let event = 'message', data = '', number = last;
  for (const line of text.split('\n')) {
    const colon = line.indexOf(':'), value = line.slice(colon + 1).replace(/^ /, '');
    switch (line.slice(0, colon)) {
      case 'event': event = value; break;
      case 'data': data += value; break;
      case 'id': number = Number(value); break;
    }
  }
  if (!data) return number;
  const gap = last === undefined || number > last + 1 || number < last;
  const content = JSON.parse(data);
  switch (event) {
    case 'status': takeStatus(content); break;
    case 'history': known.history = content; redraw(drawHistory); break;
    case 'pushes': takePushes(content); break;
  }
  if (gap) reload();
  return number;
}

function takeStatus(status) {
  if (known.status && known.status.version !== status.version) location.reload(); // the page is of the other version
  status.came = ticks();
  known.status = status;
  known.token = token;
  known.lost = undefined;
  drawVerdict();
  redraw(drawStatus);
}

function takePushes({pushes, left_out: leftOut}) {
  for (const push of pushes) {
    list.took(push);
    if (push.id === one.id) one.took(push);
    question.took(push);
  }
  if (leftOut > 0) reload();
}

// reload asks for what is shown anew, soon, but not often; and not before there is an
// answer, or where that takes long none would ever be used.
let reloading, stale, reloaded = -Infinity;
async function reload() {
  stale = true;
  if (reloading) return;
  reloading = true;
  while (stale) {
    await new Promise((resolve) => setTimeout(resolve, reloaded + 3000 - ticks()));
    stale = false;
    await (one.id ? one.load() : list.load());
    reloaded = ticks();
  }
  reloading = false;
}

// ---- Drawing. What was asked for is drawn once before the next picture, and not at
// all while nobody sees the page.

const wanted = new Set();
function redraw(draw) {
  if (wanted.size === 0) requestAnimationFrame(() => {
    const all = [...wanted];
    wanted.clear();
    for (const each of all) each();
  });
  wanted.add(draw);
}

const levels = {well: 'Working', attention: 'Attention', trouble: 'Trouble', lost: 'No connection', locked: 'Token wanted', connecting: 'Connecting'};
const troubles = {
  shutting_down: 'Shutting down', journal_unavailable: 'Journal', store_unreachable: 'Store', credentials: 'Credentials',
  bucket_on_trial: 'Bucket', journal_moved_aside: 'Journal',
};

// verdict returns the level and the words of it, of the daemon or of the connection.
function verdict(reason) {
  if (!known.lost) return known.status;
  if (known.locked) return {level: 'locked', summary: 'The daemon tells nothing without a token.', advice: ''};
  const seen = known.status ? 'since ' + clock(known.lost) + ' ' + zone(known.lost) : 'at ' + location.host;
  const advice = known.status ? 'What stands below is as it was then, and old by now. Is the daemon running, and the way to it open?'
    : 'Is the daemon running, and the way to it open? A browser lets no more than five or six tabs watch one daemon.';
  if (reason instanceof Stranger) return {level: 'lost', summary: reason.message, advice: 'Another program has its address, or a proxy on the way answers instead.'};
  if (reason instanceof Refusal) return {level: 'lost', summary: 'The daemon does not tell how it is.', advice: reason.message};
  return {level: 'lost', summary: 'The daemon does not answer ' + seen + '.', advice};
}

let spoken = '';
function drawVerdict(reason) {
  const {level, summary, advice} = verdict(reason);
  const causes = known.lost ? [] : known.status.troubles ?? [];
  $('verdict').className = level;
  $('sign').setAttribute('href', '#i-' + level);
  say($('level'), levels[level] ?? level);
  say($('summary'), plain(summary));
  say($('advice'), plain(advice));
  show($('advice'), advice);
  document.body.classList.toggle('old', known.lost !== undefined && known.status !== undefined);
  drawAgain();
  if (changed($('troubles'), causes)) {
    $('troubles').replaceChildren(...causes.map((each) =>
      element('li', {}, (troubles[each.kind] ?? each.kind) + ': ' + plain(each.cause || each.detail) + (each.since ? ' (since ' + moment(new Date(each.since)) + ')' : ''))));
  }
  show($('troubles'), causes.length > 0);

  const words = levels[level] + ': ' + plain(summary);
  say(document.querySelector('title'), words + ' – s3daemon ' + location.host);
  drawFavicon(level);
  // Numbers in the sentence change every second, which nobody wants to hear.
  if (words.replace(/\d+/g, '') !== spoken) {
    spoken = words.replace(/\d+/g, '');
    say($('spoken'), words + ' ' + plain(advice));
  }
}

// drawAgain counts the seconds to the next attempt at a stream.
function drawAgain() {
  const seconds = Math.ceil((known.next - ticks()) / 1000);
  show($('again'), known.lost !== undefined && Number.isFinite(seconds));
  say($('again'), seconds > 0 ? 'This page tries again in ' + seconds + ' s.' : 'This page tries again now.');
}
setInterval(drawAgain, 1000);

// The icon in the tab differs by its form too.
const favicons = {
  well: ['#1a7f37', 'M4 8.5l3 3 5-6.5'], attention: ['#b35900', 'M8 3v6M8 11.5v1.5'], trouble: ['#c4142e', 'M4.5 4.5l7 7m0-7l-7 7'],
  lost: ['#57606a', 'M4 8h8'],
};
function drawFavicon(level) {
  const [colour, sign] = favicons[level] ?? favicons.lost;
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="4" fill="${colour}"/>` +
    `<path d="${sign}" fill="none" stroke="#fff" stroke-width="2.2" stroke-linecap="round"/></svg>`;
  const href = 'data:image/svg+xml,' + encodeURIComponent(svg);
  if ($('icon').getAttribute('href') !== href) $('icon').setAttribute('href', href);
}

// changed reports whether an element shows other data than these, and notes that it
// shows these now.
const shown = new WeakMap();
function changed(target, data) {
  const text = JSON.stringify(data);
  if (shown.get(target) === text) return false;
  shown.set(target, text);
  return true;
}

function drawStatus() {
  const s = known.status, of = s.last_15_minutes, start = s.since_start, {queued, running, retrying} = s.queue;
  const oldest = (line) => line.pushes > 0 ? 'oldest ' + coarse(line.oldest_seconds) : '';
  say($('about'), 'version ' + s.version + ', up ' + age(since(s.started_at)) + ', to ' + plain(s.store.url));
  // Without a push there are the bytes of questions to the store alone.
  say($('rate'), rate(running.pushes > 0 || s.throughput.pushes_per_second > 0 ? s.throughput.bytes_per_second : 0));
  say($('perSecond'), digits(s.throughput.pushes_per_second) + ' pushes/s');
  say($('queued'), count(queued.pushes));
  say($('queuedOldest'), [oldest(queued), retrying > 0 ? count(retrying) + ' retrying' : ''].filter(Boolean).join('\n'));
  say($('running'), count(running.pushes));
  say($('runningOldest'), oldest(running));
  say($('done'), count(of.done));
  say($('doneBytes'), bytes(of.bytes));
  say($('late'), count(of.late));
  say($('lateOver'), 'over ' + brief(s.deadline_seconds));
  say($('failed'), count(of.failed));
  show($('lateBox'), s.deadline_seconds > 0);
  $('lateBox').className = of.late > 0 ? 'attention' : '';
  $('failedBox').className = of.failed > 0 ? 'trouble' : '';
  show($('failedLink'), of.failed > 0, $('main'));
  say($('refused'), count(of.refused));
  show($('refusedBox'), of.refused > 0);
  say($('since'), `Since the start: ${count(start.done)} done (${bytes(start.bytes)}), ${count(start.late)} of them late, ` +
    `${count(start.failed)} failed, ${count(start.cancelled)} cancelled` + (start.refused > 0 ? `; ${count(start.refused)} refused, for want of room.` : '.'));
  drawFailures(s);
  drawHistogram();
  drawPool();
  list.tick();
  one.tick();
}

function drawHistory() {
  if (!known.history) return;
  const {bytes_per_second: values, step_seconds: step, failed_per_second: failed, until} = known.history;
  if ($('throughput').clientWidth === 0) return; // it is not seen now
  drawThroughput($('throughput'), known.history);
  const peak = Math.max(...values), at = new Date(Date.parse(until) - (values.length - 1 - values.lastIndexOf(peak)) * step * 1000);
  const failures = Math.round(failed.reduce((sum, each) => sum + each, 0) * step);
  say($('throughputWords'), peak > 0
    ? `Peak ${rate(peak)} at ${clock(at)}.` + (failures > 0 ? ` A cross is where pushes failed (${count(failures)}).` : '')
    : 'Nothing was sent in the last 15 minutes.');
}

function drawHistogram() {
  const {times, deadline_seconds: deadline, last_15_minutes: of} = known.status;
  if ($('times').clientWidth === 0 || !changed($('times'), [times, deadline, of, $('times').clientWidth])) return;
  drawTimes($('times'), times, deadline);
  const all = times.pushes.reduce((sum, n) => sum + n, 0);
  const within = (share) => {
    let below = 0;
    const i = times.pushes.findIndex((n) => (below += n) >= share * all);
    return i < times.bounds_seconds.length ? 'within ' + brief(times.bounds_seconds[i]) : 'after ' + brief(times.bounds_seconds.at(-1));
  };
  say($('timesWords'), all === 0 ? 'No push was done in the last 15 minutes.'
    : (deadline > 0 ? `${count(of.late)} of ${count(all)} late (over ${brief(deadline)}, hatched). ` : '') + `Half were done ${within(0.5)}, 95 % ${within(0.95)}.`);
  const first = times.pushes.findIndex((n) => n > 0), last = times.pushes.findLastIndex((n) => n > 0);
  show($('timesDetails'), all > 0);
  $('timesRows').replaceChildren(...times.pushes.map((n, i) => i < first || i > last ? '' : element('tr', {},
    element('th', {scope: 'row'}, i === 0 ? 'up to ' + brief(times.bounds_seconds[0])
      : i === times.bounds_seconds.length ? 'over ' + brief(times.bounds_seconds[i - 1])
        : brief(times.bounds_seconds[i - 1]) + ' to ' + brief(times.bounds_seconds[i])),
    element('td', {class: 'number'}, count(n)))));
}

function drawPool() {
  const {slots, slots_in_use: inUse, connections} = known.status.pool;
  const busy = connections.filter((c) => c.state === 'busy').length, warm = connections.filter((c) => c.warm).length;
  say($('poolWords'), `${plural(inUse, 'request')} under way, of ${count(slots)} that may be at once. ${plural(connections.length, 'connection')} open: ` +
    `${count(busy)} busy, ${count(connections.length - busy)} idle. On ${count(warm)} of them files begin at full rate (warm).`);
  if (!$('poolDetails').open) return;
  if (!changed($('poolRows'), connections)) return;
  $('poolRows').replaceChildren(...connections.map((c) => row(
    ['No.', String(c.number)], ['Address', plain(c.address)], ['State', c.state], ['Round trip', c.rtt_seconds > 0 ? took(c.rtt_seconds) : 'unknown'],
    ['Carries', c.rate_bytes_per_second > 0 ? rate(c.rate_bytes_per_second) : 'unknown'],
    ['First round trip', (c.warm ? 'warm' : 'cold') + (c.first_round_trip_bytes > 0 ? ', ' + bytes(c.first_round_trip_bytes) : '')])));
}
$('poolDetails').addEventListener('toggle', () => known.status && redraw(drawPool));

// row makes a row of a table that becomes a card on a narrow screen, where each cell
// says what it is.
function row(...cells) {
  return element('tr', {role: 'row'}, ...cells.map(([is, content]) => element('td', {role: 'cell', 'data-is': is}, content)));
}

// A page that is left, but kept for the way back, would hold a connection, of which a
// browser makes few to one place.
addEventListener('pagehide', () => stream?.abort());
addEventListener('pageshow', (event) => event.persisted && !known.locked && wake());

addEventListener('resize', () => {
  redraw(drawHistory);
  if (known.status) redraw(drawHistogram);
});
