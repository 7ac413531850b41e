'use strict';
// What failed lately and why, by causes, so that nobody has to search the list for it.

// A Cause is the pushes that failed for one reason. Its elements stay while it changes,
// as those of a Row do.
class Cause {
  constructor() {
    this.title = element('b');
    this.code = element('code', {class: 'code'});
    this.detail = element('p', {class: 'wrong clip'});
    this.advice = element('p');
    this.newest = element('a', {class: 'file'});
    this.at = element('time');
    this.all = element('a');
    this.node = element('li', {}, element('p', {}, this.title, ' ', this.code), this.detail, this.advice,
      element('p', {class: 'faint'}, 'Last one: ', this.newest, ' at ', this.at, '. ', this.all));
  }

  draw({code, bucket, pushes, summary, advice, newest}) {
    if (!changed(this.node, [pushes, newest])) return;
    say(this.title, count(pushes) + ' × ' + plain(summary));
    say(this.code, plain(code));
    say(this.detail, capital(plain(newest.detail)));
    say(this.advice, plain(advice));
    this.newest.replaceChildren(named(base(newest.file)));
    this.newest.href = '#/pushes/' + newest.id;
    say(this.at, clock(new Date(newest.finished_at)));
    this.at.dateTime = newest.finished_at;
    this.all.replaceChildren('All that failed to ', named(bucket));
    this.all.href = list.hash({state: 'failed', text: 's3://' + bucket + '/'});
  }
}

const causes = new Map(); // that are shown, by code and bucket

function drawFailures({failures, failures_left_out: others}) {
  const gone = new Set(causes.keys());
  failures.forEach((each, i) => {
    const key = each.code + ' ' + each.bucket;
    gone.delete(key);
    if (!causes.has(key)) causes.set(key, new Cause());
    const {node} = causes.get(key);
    causes.get(key).draw(each);
    if ($('causes').children[i] !== node) $('causes').insertBefore(node, $('causes').children[i] ?? null);
  });
  for (const key of gone) {
    show(causes.get(key).node, false, $('main'));
    causes.get(key).node.remove();
    causes.delete(key);
  }
  show($('failures'), failures.length > 0);
  say($('otherCauses'), others > 0 ? 'And ' + plural(others, 'push', 'pushes') + ' for other reasons.' : '');
}
