package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/url"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lsst-dm/s3daemon/listen"
	"github.com/lsst-dm/s3daemon/push"
)

// parser collects mistakes.
type parser struct{ mistakes []error }

func (p *parser) mistake(name, format string, args ...any) {
	p.mistakes = append(p.mistakes, fmt.Errorf("%s: "+format, append([]any{name}, args...)...))
}

// number reads a whole number within bounds. An empty variable is one that is
// not set, here and below.
func (p *parser) number(name, text string, least, most int) int {
	n, err := strconv.Atoi(orDefault(name, text))
	if err != nil || n < least || n > most {
		p.mistake(name, "%q is not a whole number from %d to %d", text, least, most)
	}
	return n
}

// duration reads 5s, 1m30s, or a plain number of seconds as the old daemon took
// it.
func (p *parser) duration(name, text string, least, most time.Duration) time.Duration {
	text = orDefault(name, text)
	d, err := time.ParseDuration(text)
	if seconds, numErr := strconv.ParseFloat(text, 64); numErr == nil {
		d, err = time.Duration(seconds*float64(time.Second)), nil
		if !(seconds >= 0 && seconds < 1e9) { // NaN and what would overflow
			d = -1
		}
	}
	if err != nil || d < least || d > most {
		p.mistake(name, "%q is not a duration such as 5s or 1m30s, or a number of seconds, from %v to %v", text, least, most)
	}
	return d
}

func (p *parser) choice(name, text string, choices ...string) string {
	chosen := strings.ToLower(orDefault(name, text))
	if !slices.Contains(choices, chosen) {
		p.mistake(name, "%q is none of %s", text, strings.Join(choices, ", "))
	}
	return chosen
}

// flag reads true or false, in the spellings of strconv.ParseBool.
func (p *parser) flag(name, text string) bool {
	on, err := strconv.ParseBool(orDefault(name, text))
	if err != nil {
		p.mistake(name, "%q is neither true nor false", text)
	}
	return on
}

// endpoint checks the store's URL. A URL can hold a password, so a mistake in
// it is described and not repeated.
func (p *parser) endpoint(name, text string) string {
	if text == "" {
		return ""
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		p.mistake(name, "not a URL such as https://s3.example.org or http://127.0.0.1:9000")
	case u.User != nil:
		p.mistake(name, "has a user or password in it: give credentials by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	case strings.ContainsAny(text, " \t\r\n"):
		p.mistake(name, "has white space in it")
	case strings.ContainsAny(text, "?#"):
		p.mistake(name, "has a query or a fragment in it: give scheme, host and port")
	case u.Port() != "" && !validPort(u.Port()):
		p.mistake(name, "has a port that is none: ports go from 1 to 65535")
	}
	return strings.TrimRight(text, "/")
}

// checkProxies looks for the mistakes for which net/http leaves a proxy aside without a
// word: what was to go by it would go directly. A value may hold a password.
func checkProxies(getenv func(string) string) error {
	var p parser
	for _, names := range [][2]string{{"HTTPS_PROXY", "https_proxy"}, {"HTTP_PROXY", "http_proxy"}} {
		for _, name := range names {
			if text := getenv(name); text != "" {
				if !isProxy(text) {
					p.mistake(name, "not the address of a proxy, such as http://proxy.example.org:3128 (http, https or socks5)")
				}
				break // the other is not asked for then
			}
		}
	}
	return errors.Join(p.mistakes...)
}

func isProxy(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" || u.Host == "" {
		u, err = url.Parse("http://" + text) // as net/http reads it
	}
	return err == nil && slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme) && u.Hostname() != "" && (u.Port() == "" && !strings.HasSuffix(u.Host, ":") || validPort(u.Port()))
}

// algorithm reads auto, or the name of a congestion control as the kernel has
// them.
func (p *parser) algorithm(name, text string) string {
	const longest = 15 // TCP_CA_NAME_MAX, less the 0 that ends it
	text = strings.ToLower(orDefault(name, text))
	if len(text) > longest || strings.Trim(text, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
		p.mistake(name, "%q is neither auto nor the name of a congestion control such as bbr or cubic", text)
	}
	return text
}

// bandwidth reads bits per second, or the path of a file that has them.
func (p *parser) bandwidth(name, text string) (bits int64, file string) {
	text = orDefault(name, text)
	if strings.HasPrefix(text, "/") {
		return 0, text
	}
	bits, ok := bitsPerSecond(text)
	if !ok {
		p.mistake(name, "%q is neither %s, nor the absolute path of a file that has that", text, aBandwidth)
	}
	return bits, ""
}

// destination reads the object that s3://bucket/key names.
func (p *parser) destination(name, text string) push.Destination {
	to, err := push.ParseDestination(text)
	if err != nil || !strings.HasPrefix(text, "s3://") {
		p.mistake(name, "%q is not s3://bucket/key", text)
	}
	return to
}

// places reads where pushes may go. A list of nothing is a mistake: it was meant
// to allow something, and would allow all.
func (p *parser) places(name, text string) push.Places {
	patterns := list(text)
	if text != "" && len(patterns) == 0 {
		p.mistake(name, "names no bucket")
	}
	places, err := push.ParsePlaces(patterns)
	if err != nil {
		p.mistake(name, "%v", err)
	}
	return places
}

// roots reads the directories that files are read beneath. A list of nothing is
// a mistake, as for places.
func (p *parser) roots(name, text string) []string {
	roots := list(text)
	if text != "" && len(roots) == 0 {
		p.mistake(name, "names no directory")
	}
	for i, dir := range roots {
		if err := push.CheckPath(dir); err != nil || slices.Contains(strings.Split(dir, "/"), "..") {
			p.mistake(name, "%q is not the absolute path of a directory, without ..", dir)
		}
		roots[i] = filepath.Clean(dir)
	}
	return roots
}

// listen reads addresses to listen on. A list of nothing is a mistake: who wrote
// it asks somewhere, and nobody would answer.
func (p *parser) listen(name, text string) []string {
	text = orDefault(name, text)
	addrs := list(text)
	if text != "" && len(addrs) == 0 {
		p.mistake(name, "names no address")
	}
	for _, a := range addrs {
		if path, ok := strings.CutPrefix(a, "unix:"); ok {
			if !strings.HasPrefix(path, "/") {
				p.mistake(name, "%q is not an absolute path: write unix:/run/s3daemon/s3daemon.sock", a)
			}
			continue
		}
		if _, port, err := net.SplitHostPort(a); err != nil || port != "0" && !validPort(port) {
			p.mistake(name, "%q is neither host:port nor unix:/path", a)
		}
	}
	return addrs
}

// path reads the absolute path of a file or a directory.
func (p *parser) path(name, text string) string {
	if text != "" && !filepath.IsAbs(text) {
		p.mistake(name, "%q is not an absolute path", text)
	}
	return text
}

// secretFile reads the absolute path of a file that has a secret, and does not repeat
// what is none: somebody may have given the secret itself.
func (p *parser) secretFile(name, text string) string {
	if text != "" && !filepath.IsAbs(text) {
		p.mistake(name, "it is not the absolute path of a file")
	}
	return text
}

// mode reads the permissions of a socket.
func (p *parser) mode(name, text string) fs.FileMode {
	mode, err := strconv.ParseUint(orDefault(name, text), 8, 32)
	if err != nil || mode > 0o777 {
		p.mistake(name, "%q is not a mode of three octal digits such as 0660", text)
	} else if mode&0o222 == 0 {
		p.mistake(name, "%q lets nobody write, and who connects needs that", text)
	}
	return fs.FileMode(mode)
}

// group reads the number or the name of a group; -1 where there is none.
func (p *parser) group(name, text string) int {
	if text == "" {
		return -1
	}
	if id, is := account(text); is {
		return int(id)
	}
	g, err := user.LookupGroup(text)
	if err != nil {
		p.mistake(name, "there is no group %q here: give its number", text)
		return -1
	}
	id, _ := account(g.Gid)
	return int(id)
}

// users reads a list of users. One of nothing is a mistake: it was meant to keep
// somebody out, and would let everybody in.
func (p *parser) users(name, text string) []uint32 {
	var ids []uint32
	for _, who := range list(text) {
		if id, is := account(who); is {
			ids = append(ids, id)
			continue
		}
		u, err := user.Lookup(who)
		if err != nil {
			p.mistake(name, "there is no user %q here: give the number", who)
			continue
		}
		id, _ := account(u.Uid)
		ids = append(ids, id)
	}
	switch {
	case text != "" && len(list(text)) == 0:
		p.mistake(name, "names no user")
	case text != "" && !listen.TellsUsers:
		p.mistake(name, "this system does not say who is at the other end of a socket")
	}
	return ids
}

// account reads the number of a user or a group. The largest stands for none.
func account(text string) (id uint32, is bool) {
	n, err := strconv.ParseUint(text, 10, 32)
	return uint32(n), err == nil && n < math.MaxUint32
}

func validPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// list splits a comma-separated variable; blanks around its members are no part
// of them.
func list(text string) []string {
	var out []string
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// orDefault returns the text, or the variable's default if it is empty:
// envconfig takes an empty variable for one that was set.
func orDefault(name, text string) string {
	if text != "" {
		return text
	}
	for _, v := range variables() {
		if v.name == name {
			return v.fallback
		}
	}
	return ""
}
