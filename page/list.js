'use strict';
// The list of pushes, its filter, and the question before a push is changed.

const states = {queued: 'Queued', running: 'Running', done: 'Done', failed: 'Failed', cancelled: 'Cancelled'};
const ended = (push) => push.state !== 'queued' && push.state !== 'running';
const base = (file) => file.slice(file.lastIndexOf('/') + 1);

// stateOf shows a state by icon, colour and word.
const stateOf = (push) => element('span', {class: 'state ' + push.state}, icon(push.state), states[push.state] ?? push.state);

// isLate reports whether a push took, or has been taking, longer than it may.
function isLate(push) {
  const deadline = known.status?.deadline_seconds;
  if (!deadline) return false;
  return push.state === 'done' ? push.seconds > deadline : !ended(push) && since(push.accepted_at) > deadline;
}

const timeOf = (push) => ended(push) ? took(push.seconds) : age(since(push.accepted_at));

// reasonOf says why a push failed, was cancelled, or waits.
function reasonOf(push) {
  if (!push.problem) return '';
  const before = {queued: 'Waiting: ', running: 'Before: '}[push.state] ?? '';
  return before + (before ? plain(push.problem.detail) : capital(plain(push.problem.detail)));
}

// waitOf says when there is another attempt.
function waitOf(push) {
  if (push.state !== 'queued' || !push.retry_at) return '';
  const seconds = -since(push.retry_at);
  return seconds > 0 ? 'Tried again in ' + age(seconds) + '.' : 'Tried again now.';
}

// A Row is one push in the list. Its elements stay the same while it changes, so that
// neither focus nor a selection is lost.
class Row {
  constructor() {
    this.state = element('td', {role: 'cell'});
    this.link = element('a', {class: 'file'});
    this.from = element('div', {class: 'object from clip'});
    this.object = element('div', {class: 'object clip'});
    this.label = element('span');
    this.progress = new Progress();
    this.why = element('p');
    this.wait = element('span');
    this.size = element('td', {role: 'cell', class: 'number', 'data-is': 'Size'});
    this.took = element('span');
    this.late = element('span', {class: 'tag attention'}, 'late');
    this.accepted = element('time', {class: 'faint'});
    this.button = element('button', {type: 'button'});
    this.button.addEventListener('click', () => question.open(this.push));
    this.node = element('tr', {role: 'row'}, this.state,
      element('td', {role: 'cell'}, this.link, ' ', this.label, this.from, this.object, this.progress.node, this.why), this.size, element('td', {role: 'cell', class: 'number', 'data-is': 'Time'}, this.late, ' ', this.took, ' ', this.accepted), element('td', {role: 'cell'}, this.button));
  }

  draw(push) {
    this.push = push;
    if (changed(this.node, push)) {
      this.state.replaceChildren(stateOf(push));
      if (changed(this.link, push.file)) {
        this.link.replaceChildren(named(base(push.file)));
        this.from.replaceChildren('from ', named(push.file.slice(0, -base(push.file).length)));
      }
      this.link.href = '#/pushes/' + push.id;
      if (changed(this.object, push.destination)) this.object.replaceChildren('to ', named(push.destination));
      this.progress.draw(push);
      this.why.replaceChildren(this.wait, ' ', reasonOf(push), ' ', push.problem ? element('code', {class: 'code'}, push.problem.code) : '');
      this.why.className = 'why clip ' + (push.state === 'failed' ? 'wrong' : '');
      show(this.why, push.problem);
      if (changed(this.label, push.label ?? '')) {
        this.label.replaceChildren(...(push.label ? [element('span', {class: 'unseen'}, 'label '), named(push.label, 'tag')] : []));
      }
      say(this.size, bytes(push.size));
      const act = actionOf(push);
      show(this.button, act, this.link);
      if (act) {
        say(this.button, act);
        this.button.setAttribute('aria-label', act + ' ' + plain(base(push.file)));
      }
    }
    this.tick();
  }

  // tick draws what changes by the time alone.
  tick() {
    say(this.took, timeOf(this.push));
    show(this.late, isLate(this.push));
    say(this.wait, waitOf(this.push));
    say(this.accepted, ago(since(this.push.accepted_at)));
    const at = moment(new Date(this.push.accepted_at));
    if (this.accepted.title !== at) {
      this.accepted.title = at;
      this.accepted.dateTime = this.push.accepted_at;
    }
  }
}

// Progress is the bar of a push that runs, with its numbers.
class Progress {
  constructor() {
    this.bar = element('progress');
    this.words = element('span', {class: 'faint'});
    this.node = element('div', {}, this.bar, ' ', this.words);
  }

  draw(push) {
    const running = push.state === 'running' && push.size > 0, sent = Math.min(push.sent_bytes ?? 0, push.size);
    show(this.node, running);
    if (!running) return;
    this.bar.max = push.size;
    this.bar.value = sent;
    this.bar.setAttribute('aria-label', 'Sent of ' + plain(base(push.file)));
    say(this.words, bytes(sent) + ' of ' + bytes(push.size) + ' (' + Math.floor(sent / push.size * 100) + ' %)');
  }
}

// given is what of a filter is there.
const given = (filter) => Object.entries(filter).filter(([, value]) => value);

const list = {
  filter: {state: '', label: '', text: '', cursor: ''},
  pushes: [], // that are shown, newest first
  next: '', // the cursor of those behind them
  rows: new Map(), // by id
  loads: 0, // begun, so that an answer that was overtaken is not used
  meanwhile: undefined, // what was heard while the answer to a load is under way
  held: false, // no row comes or goes
  newer: false, // but some would have
  told: false, // the daemon has answered with a list
  of: '', // the address of the list that is shown

  // look has the list show what a filter lets through.
  look(filter) {
    const fields = {state: $('byState'), label: $('byLabel'), text: $('byText')};
    for (const [key, field] of Object.entries(fields)) {
      if (field.value !== filter[key]) field.value = filter[key]; // also where somebody types: the address decides
    }
    this.filter = filter;
    this.hold(false);
    this.load();
  },

  // hash is the address of the list with a filter.
  hash(filter) {
    const query = new URLSearchParams(given(filter));
    return '#/' + (query.size ? '?' + query : '');
  },

  async load() {
    const load = ++this.loads, meanwhile = this.meanwhile = [];
    const query = new URLSearchParams([['limit', pageSize], ...given(this.filter)]);
    let page;
    try {
      page = await tell('GET', 'pushes?' + query, $('listWrong'));
    } catch (error) {
      if (load !== this.loads) return;
      this.meanwhile = undefined;
      say($('listWrong'), error.message);
      if (this.of !== this.hash(this.filter)) { // what is shown is not what was asked for
        this.pushes = [];
        this.next = '';
        this.told = false;
        redraw(drawList);
      }
      return;
    }
    if (load !== this.loads) return;
    this.meanwhile = undefined;
    this.told = true;
    this.of = this.hash(this.filter);
    say($('listWrong'), '');
    if (this.held) {
      for (const push of page.pushes ?? []) this.merge(push);
    } else {
      this.pushes = page.pushes ?? [];
      this.next = page.next ?? '';
    }
    for (const push of meanwhile) this.merge(push);
    redraw(drawList);
  },

  // took takes a push that has changed.
  took(push) {
    if (this.meanwhile) {
      this.meanwhile.push(push);
      this.meanwhile.splice(0, this.meanwhile.length - 500);
    }
    this.merge(push);
    redraw(drawList);
  },

  fits(push) {
    const {state, label, text} = this.filter, lower = (s) => (s ?? '').replace(/[A-Z]/g, (c) => c.toLowerCase());
    return (!state || state.split(',').includes(push.state)) && (!label || push.label === label) &&
      (!text || [push.file, push.destination, push.label, push.id].some((each) => lower(each).includes(lower(text))));
  },

  merge(push) {
    const i = this.pushes.findIndex((each) => each.id === push.id), fits = this.fits(push);
    if (i >= 0 && (fits || this.held)) {
      this.pushes[i] = push;
    } else if (i >= 0) {
      this.pushes.splice(i, 1);
      if (this.next) reload(); // another takes its place
    } else if (fits && !this.filter.cursor && (!this.next || !this.pushes.length || push.id > this.pushes.at(-1).id)) {
      if (this.held) {
        this.newer = true;
        return;
      }
      const at = this.pushes.findIndex((each) => each.id < push.id); // ids sort by the time of acceptance
      this.pushes.splice(at < 0 ? this.pushes.length : at, 0, push);
      if (this.pushes.length > pageSize) {
        this.pushes.length = pageSize;
        this.next = this.pushes.at(-1).id;
      }
    }
  },

  // hold has the rows stay where they are, so that they can be read in a rush.
  hold(whether) {
    this.held = whether;
    this.newer = false;
    $('hold').setAttribute('aria-pressed', String(whether));
    redraw(drawList);
  },

  tick() {
    if ($('overview').hidden) return;
    for (const row of this.rows.values()) row.tick();
  },
};

function drawList() {
  if ($('overview').hidden) return;
  const body = $('rows'), {filter, pushes} = list, filtered = filter.state || filter.label || filter.text;
  const gone = new Set(list.rows.keys());
  for (const push of pushes) gone.delete(push.id);
  for (const id of gone) {
    const row = list.rows.get(id);
    if (row.node.contains(document.activeElement)) $('listTitle').focus();
    row.node.remove();
    list.rows.delete(id);
  }
  pushes.forEach((push, i) => {
    let row = list.rows.get(push.id);
    if (!row) list.rows.set(push.id, row = new Row());
    row.draw(push);
    if (body.children[i] !== row.node) body.insertBefore(row.node, body.children[i] ?? null);
  });

  show($('list'), pushes.length > 0);
  show($('none'), list.told && pushes.length === 0);
  if (pushes.length === 0 && changed($('none'), filter)) {
    $('none').replaceChildren(...(filtered || filter.cursor ? ['No push is like that.'] : ['Nothing has been pushed yet. Push a file with ',
      element('code', {}, `curl -d file=/PATH -d destination=s3://BUCKET/KEY ${root + 'push'}`)]));
  }
  show($('clear'), filtered);
  show($('newest'), filter.cursor, $('listTitle'));
  show($('older'), list.next, $('listTitle'));
  $('newest').href = list.hash({...filter, cursor: ''});
  $('older').href = list.hash({...filter, cursor: list.next});
  $('failedLink').href = list.hash({state: 'failed'});
  say($('count'), pushes.length === 0 ? '' : plural(pushes.length, 'push', 'pushes') + (filter.cursor ? ', older ones' : ', the newest first') +
    (list.newer ? '; there are newer ones, which are not shown while the list is held' : ''));

  // A suggestion cannot be told apart where it has what is not seen.
  const labels = [...new Set(pushes.map((push) => push.label).filter((label) => label && label === plain(label)))];
  if (changed($('labels'), labels)) $('labels').replaceChildren(...labels.map((label) => element('option', {value: label})));
}

// ---- The filter. It stands in the address, so that it can be kept, sent and gone back to.

function readFilter() {
  return {state: $('byState').value, label: $('byLabel').value, text: $('byText').value, cursor: ''};
}

let typing;
function filterSoon(delay) {
  clearTimeout(typing);
  const from = location.hash;
  typing = setTimeout(() => {
    if (location.hash !== from) return; // a link was followed meanwhile, of which route hears in a moment
    const filter = readFilter();
    history.replaceState(null, '', list.hash(filter));
    list.look(filter);
  }, delay);
}

$('byState').addEventListener('change', () => filterSoon(0));
$('byLabel').addEventListener('input', () => filterSoon(300));
$('byText').addEventListener('input', () => filterSoon(300));
$('filter').addEventListener('submit', (event) => {
  event.preventDefault();
  filterSoon(0);
});
$('clear').addEventListener('click', () => {
  for (const id of ['byState', 'byLabel', 'byText']) $(id).value = '';
  $('byState').focus(); // the button goes away
  filterSoon(0);
});
$('hold').addEventListener('click', () => {
  list.hold(!list.held);
  if (!list.held) list.load();
});

// ---- The question before a push is changed.

const actionOf = (push) => ended(push) ? (push.state === 'done' ? '' : 'Retry') : 'Cancel';

const question = {
  push: undefined,
  asked: undefined, // the push that the daemon has been asked to change, until it answers

  open(push) {
    const retry = actionOf(push) === 'Retry';
    this.push = push;
    this.asked = undefined;
    say($('confirmTitle'), retry ? 'Retry this push?' : 'Cancel this push?');
    $('confirmFile').replaceChildren(named(push.file, 'file'));
    $('confirmObject').replaceChildren(named(push.destination, 'file'));
    say($('confirmWords'), retry
      ? 'It goes back into the queue under the same id, with the file as it is now, and is tried until it is done or S3DAEMON_GIVE_UP_AFTER is over.'
      : 'It is not delivered, unless the store may have all of it by now: then what the store answers decides. Whoever waits for it is told. It can be put back later.');
    say($('confirmWrong'), '');
    say($('yes'), retry ? 'Retry it' : 'Cancel it');
    $('yes').className = retry ? '' : 'danger';
    $('yes').disabled = false;
    $('confirm').showModal();
    $('no').focus(); // what is pressed in haste changes nothing
  },

  // took takes what the stream says of the push meanwhile, which may leave nothing to ask.
  took(push) {
    const action = this.push && actionOf(this.push);
    if (!$('confirm').open || push.id !== this.push.id || this.asked || actionOf(push) === action || $('yes').disabled) return;
    say($('confirmWrong'), `It is ${(states[push.state] ?? push.state).toLowerCase()} by now: there is nothing to ${action.toLowerCase()}.`);
    $('no').focus();
    $('yes').disabled = true;
  },

  async act() {
    const push = this.push, action = actionOf(push);
    if (this.asked === push) return;
    this.asked = push;
    say($('confirmWrong'), '');
    say($('outcome'), ''); // or the same words would not be heard again
    say($('yes'), 'Asking the daemon');
    let words;
    try {
      const path = 'pushes/' + encodeURIComponent(push.id);
      const receipt = await (action === 'Retry' ? tell('POST', path + '/retry', $('confirmWrong')) : tell('DELETE', path, $('confirmWrong')));
      list.took(receipt);
      if (one.id === push.id) one.load();
      else reload(); // what the stream has told of it meanwhile may be newer
      words = plain(base(push.file)) + ': ' + (states[receipt.state] ?? receipt.state) + '.';
      if (action === 'Cancel' && !ended(receipt)) words += ' The store is still to be asked what it has.';
      if (this.push === push) $('confirm').close();
    } catch (error) {
      words = error.message;
      if (this.push === push && $('confirm').open) {
        say($('confirmWrong'), words);
        words = '';
      }
    }
    if (this.push === push) { // else the question is another by now
      this.asked = undefined;
      say($('yes'), action + ' it');
    }
    if (words) say($('outcome'), words);
  },
};

$('yes').addEventListener('click', () => question.act());
$('no').addEventListener('click', () => $('confirm').close());

// The focus goes back to the button that asked, or, where that is gone, beside it.
$('confirm').addEventListener('close', () => {
  const on = document.activeElement;
  if (!$('ask').hidden || on !== document.body && on.checkVisibility()) return;
  (one.id ? $('oneTitle') : list.rows.get(question.push.id)?.link ?? $('listTitle')).focus();
});
