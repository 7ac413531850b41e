'use strict';
// The page of one push, and which page is shown.

const phases = [
  ['queued', 'Queued', 'waited for its turn, its file or another attempt'],
  ['connect', 'Connect', 'waited for a connection to the store'],
  ['send', 'Send', 'until the store had acknowledged the last byte'],
  ['store', 'Store', 'until the store had answered'],
];

const one = {
  id: '', // of the push that is shown; empty while the list is
  push: undefined, // with its failed attempts, once it is known
  loads: 0,
  heard: undefined, // what the stream has said of it since the answer to the last load was asked for

  look(id) {
    this.id = id;
    this.push = undefined;
    show($('oneBody'), false);
    say($('oneTitle'), 'A push');
    say($('oneWrong'), '');
    say($('copied'), '');
    this.load();
  },

  async load() {
    const load = ++this.loads, id = this.id;
    this.heard = undefined;
    try {
      const push = await tell('GET', 'pushes/' + encodeURIComponent(id), $('oneWrong'));
      if (load !== this.loads || id !== this.id) return;
      this.push = push;
      if ((this.heard ?? push).state !== push.state) reload(); // one of the two is old
      say($('oneWrong'), '');
      redraw(drawOne);
    } catch (error) {
      if (load === this.loads && id === this.id) say($('oneWrong'), error.message);
    }
  },

  // took takes what the stream says of it. That has no attempts: where there may be
  // more of them, it is asked for.
  took(push) {
    this.heard = push;
    if (!this.push) return;
    const before = this.push;
    this.push = {...push, failed_attempts: before.failed_attempts};
    if (push.state !== before.state || push.attempts !== before.attempts || JSON.stringify(push.problem) !== JSON.stringify(before.problem)) reload();
    redraw(drawOne);
  },

  tick() {
    if (this.push && !ended(this.push)) drawOne();
  },
};

const oneProgress = new Progress();
$('oneProgress').append(oneProgress.node);

function drawOne() {
  const push = one.push;
  if (!push) return;
  show($('oneBody'), true);
  if (changed($('oneTitle'), push.file)) $('oneTitle').replaceChildren(named(base(push.file)));
  say($('oneId'), push.id);
  if (changed($('oneState'), [push, timeOf(push), waitOf(push)])) $('oneState').replaceChildren(stateOf(push), ' ', wordsOf(push));
  oneProgress.draw(push);
  drawWhy(push);
  show($('oneRetry'), actionOf(push) === 'Retry', $('oneTitle'));
  show($('oneCancel'), actionOf(push) === 'Cancel', $('oneTitle'));

  show($('timingBox'), push.timing);
  if (push.timing && changed($('timingBox'), push.timing)) {
    const parts = phases.map(([key, title, words]) => ({key, title, words, seconds: push.timing[key]}));
    const whole = parts.reduce((sum, part) => sum + part.seconds, 0) || 1;
    drawTiming($('timing'), parts);
    $('timingRows').replaceChildren(...parts.map(({key, title, words, seconds}) => {
      const sample = shape('svg', {class: 'sample', 'aria-hidden': 'true'});
      sample.append(shape('rect', {class: 'part ' + key, width: '100%', height: '100%'}));
      return element('tr', {}, element('th', {scope: 'row'}, sample, ' ', title, ' ', element('span', {}, words)),
        element('td', {class: 'number'}, took(seconds)), element('td', {class: 'number'}, Math.round(seconds / whole * 100) + ' %'));
    }));
  }

  const attempts = push.failed_attempts ?? [];
  show($('attemptsBox'), attempts.length > 0);
  if (changed($('attemptRows'), attempts)) {
    $('attemptRows').replaceChildren(...attempts.map((each) => row(
      ['When', moment(new Date(each.at))], ['After', took(each.seconds)],
      ['Request', each.operation ? plain(each.operation) + (each.part ? ', part ' + each.part : '') : 'none'],
      ['Why', element('span', {class: 'wrong'}, plain(each.detail) + ' ', element('code', {class: 'code'}, plain(each.reason)))])));
  }
  drawFacts(push);
}

// wordsOf says in a sentence how a push stands.
function wordsOf(push) {
  const late = isLate(push) ? ' It is late: over ' + brief(known.status.deadline_seconds) + '.' : '';
  switch (push.state) {
    case 'queued': return 'accepted ' + timeOf(push) + ' ago. ' + (waitOf(push) || 'It waits for its turn.') + late;
    case 'running': return 'accepted ' + timeOf(push) + ' ago.' + late;
    case 'done': return `${bytes(push.size)} in ${took(push.seconds)}` + (push.seconds > 0 && push.size > 0 ? `, ${rate(push.size / push.seconds)}.` : '.') + late;
  }
  return `after ${took(push.seconds)} and ${plural(push.attempts, 'attempt')}.`;
}

function drawWhy(push) {
  const problem = push.problem;
  if (!changed($('oneWhy'), [problem, push.state])) return;
  if (!problem) {
    $('oneWhy').replaceChildren();
    return;
  }
  const {status, code, message, request_id: request} = problem.store ?? {};
  const said = [status && 'HTTP ' + status, code, message].filter(Boolean).map(plain).join(', ');
  $('oneWhy').replaceChildren(element('div', {class: push.state === 'failed' ? 'trouble' : 'attention'},
    element('p', {}, element('b', {}, reasonOf(push))),
    element('p', {}, 'Code ', element('code', {}, problem.code), said ? '. The store said: ' : '.', said ? named(said) : '', said ? '.' : ''),
    request ? element('p', {}, 'The store knows the request as ', element('code', {}, plain(request)), '.') : ''));
}

function drawFacts(push) {
  const at = (text) => text ? moment(new Date(text)) : undefined;
  const facts = {
    File: named(push.file, 'file'),
    Object: named(push.destination, 'file'),
    Label: push.label ? named(push.label) : undefined,
    Size: bytes(push.size) + (push.size >= 1000 ? ` (${count(push.size)} bytes)` : ''),
    Accepted: at(push.accepted_at),
    'Last run began': at(push.started_at),
    Ended: at(push.finished_at),
    'Next attempt': push.state === 'queued' ? at(push.retry_at) : undefined,
    Attempts: count(push.attempts),
    'Sent as': push.parts > 1 ? count(push.parts) + ' parts' : push.parts === 1 ? 'one request' : undefined,
    Verified: push.verified ? `${push.verified.what === 'parts' ? 'each part' : 'the whole object'} by ${push.verified.algorithm}, compared by the ${push.verified.by}: ${plain(push.verified.value)}` : undefined,
    Checksum: push.checksum ? `${push.checksum.algorithm} ${plain(push.checksum.value)}` : undefined,
    ETag: push.etag ? plain(push.etag) : undefined,
    Version: push.version_id ? plain(push.version_id) : undefined,
    Traceparent: push.traceparent ? plain(push.traceparent) : undefined,
  };
  const {problem, failed_attempts: attempts, sent_bytes: sent, seconds, ...rest} = push;
  if (!changed($('facts'), rest)) return;
  $('facts').replaceChildren(...Object.entries(facts).filter(([, value]) => value !== undefined)
    .map(([title, value]) => element('div', {}, element('dt', {}, title), element('dd', {}, value))));
}

for (const id of ['oneRetry', 'oneCancel']) $(id).addEventListener('click', () => one.push && question.open(one.push));

$('copy').addEventListener('click', async () => {
  try {
    await navigator.clipboard.writeText(one.id); // which there is only where the address is trusted
    say($('copied'), 'Copied.');
  } catch {
    getSelection().selectAllChildren($('oneId'));
    say($('copied'), 'It is selected: copy it from here.');
  }
});

// ---- Which page is shown stands in the fragment of the address: #/?FILTER or #/pushes/ID.

function route() {
  clearTimeout(typing); // what was typed a moment ago would lead back to the list
  if (location.hash && !location.hash.startsWith('#/')) return; // another part of this document
  const id = /^#\/pushes\/([\w-]+)$/.exec(location.hash)?.[1] ?? '';
  const wasOne = one.id !== '';
  show($('overview'), !id);
  show($('one'), id);
  if (id) {
    if (!wasOne) $('back').href = list.hash(list.filter);
    one.look(id);
    $('oneTitle').focus();
    scrollTo(0, 0);
    return;
  }
  const moved = wasOne || list.told, query = new URLSearchParams(location.hash.split('?')[1]);
  one.id = '';
  list.look(Object.fromEntries(['state', 'label', 'text', 'cursor'].map((key) => [key, query.get(key) ?? ''])));
  if (known.status) redraw(drawStatus);
  redraw(drawHistory);
  if (moved && (wasOne || list.filter.cursor || list.filter.state)) {
    $('listTitle').focus();
    $('listTitle').scrollIntoView();
  }
}

addEventListener('hashchange', route);
$('skip').addEventListener('click', (event) => {
  event.preventDefault(); // the fragment says which page is shown
  $('main').focus();
});

// ---- The token.

// wantToken shows nothing of what was known, and asks for a token.
function wantToken(refusal) {
  known.locked = true;
  known.lost ??= lastHeard();
  stream.abort();
  $('confirm').close();
  for (const id of ['overview', 'one', 'verdict']) show($(id), false);
  for (const id of ['about', 'since']) say($(id), '');
  drawVerdict();
  show($('ask'), true);
  say($('askwrong'), !token ? '' : token === known.token ? 'The token that this tab had counts no longer.' : refusal.message);
  if (document.activeElement !== $('token')) $('token').focus();
}

$('ask').addEventListener('submit', (event) => {
  event.preventDefault();
  const given = $('token').value.trim();
  if (!/^[\x21-\x7e]+$/.test(given)) {
    say($('askwrong'), 'A token has visible ASCII characters only.');
    return;
  }
  token = given;
  try {
    sessionStorage.setItem('s3daemon.token', token);
  } catch { /* then it is kept until the page is loaded anew */ }
  $('token').value = '';
  known.locked = false;
  show($('ask'), false, $('main'));
  show($('verdict'), true);
  route();
  stream.abort();
  wake();
});

say($('zone'), zone(new Date()));
route();
watch();
