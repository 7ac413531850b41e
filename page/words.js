'use strict';
// How the page says numbers, times and names, and how it makes elements. Nothing
// here knows what the page is about.

// element makes one element. All text becomes text nodes: nothing that the daemon
// says is ever read as HTML.
function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== undefined && value !== false) made.setAttribute(name, value === true ? '' : value);
  }
  made.append(...children.filter((child) => child !== undefined && child !== ''));
  return made;
}

const $ = (id) => document.getElementById(id);

// say changes the text of an element, and nothing where it is that text already:
// what stands still is neither laid out anew nor read out again.
function say(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

// show shows an element or does not. Where one that had the focus goes away, another has
// that instead, or who uses keys would begin anew at the top.
function show(target, whether, instead) {
  if (!whether && instead && target.contains(document.activeElement)) instead.focus({preventScroll: true});
  target.hidden = !whether;
}

function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  use.setAttribute('href', '#i-' + name);
  svg.append(use);
  return svg;
}

// odd is what a name can have in it that is not seen, or that shows it as another:
// control characters, those that turn the direction of text or take no room, half of
// a pair of surrogates, and the replacement for what is not UTF-8.
const odd = /[\u0000-\u001f\u007f-\u00a0\u00ad\u061c\u115f\u1160\u180e\u200b\u200c\u200e\u200f\u2028-\u202f\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\ufff0-\ufffd\u{e0000}-\u{e0fff}]|\p{Surrogate}/gu;

// plain returns a name that can be shown, with the odd characters by their numbers.
function plain(text) {
  return String(text ?? '').replace(odd, (c) => '⟨U+' + c.codePointAt(0).toString(16).toUpperCase().padStart(4, '0') + '⟩');
}

// named is an element with what somebody else has named, apart from the direction of
// the text around it.
const named = (text, className) => element('bdi', {class: className}, plain(text));

function digits(n) {
  return n.toFixed(n >= 100 ? 0 : n >= 10 ? 1 : 2);
}

const count = (n) => Math.round(n).toLocaleString('en');

// bytes says a number of bytes in decimal units, as networks have them.
function bytes(n) {
  for (const unit of ['B', 'kB', 'MB', 'GB', 'TB', 'PB']) {
    if (n < 999.5 || unit === 'PB') return (unit === 'B' ? Math.round(n) : digits(n)) + ' ' + unit;
    n /= 1000;
  }
}

const rate = (n) => bytes(n) + '/s';

// took says how long something was.
function took(s) {
  if (s < 0.01) return digits(s * 1000) + ' ms';
  if (s < 1) return (s * 1000).toFixed(0) + ' ms';
  return s < 60 ? digits(s) + ' s' : age(s);
}

// age says how long ago something was, no finer than anybody wants to know.
function age(s) {
  s = Math.max(0, Math.floor(s));
  const [m, h, d] = [Math.floor(s / 60), Math.floor(s / 3600), Math.floor(s / 86400)];
  if (m < 1) return s + ' s';
  if (m < 10) return m + ' min ' + s % 60 + ' s';
  if (h < 1) return m + ' min';
  return d < 1 ? h + ' h ' + m % 60 + ' min' : d + ' d ' + h % 24 + ' h';
}

// coarse says it in one unit, where there is little room.
const coarse = (s) => age(s).replace(/( \D+) .*/, '$1');

const ago = (s) => coarse(s) + ' ago';

const two = (n) => String(n).padStart(2, '0');
const day = (at) => at.getFullYear() + '-' + two(at.getMonth() + 1) + '-' + two(at.getDate());

// clock says a moment of today by the reader's clock.
const clock = (at) => two(at.getHours()) + ':' + two(at.getMinutes()) + ':' + two(at.getSeconds());

const zoned = new Intl.DateTimeFormat('en', {timeZoneName: 'short'});

function zone(at) {
  return zoned.formatToParts(at).find((part) => part.type === 'timeZoneName').value;
}

// moment says a moment in full, by the reader's clock.
const moment = (at) => day(at) + ' ' + clock(at) + ' ' + zone(at);

// plural puts a number before a word.
const plural = (n, one, many) => count(n) + ' ' + (n === 1 ? one : many ?? one + 's');

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
