package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// leaks looks for secrets in all that comes out of the processes of the suite: what
// they write, their HTTP answers, and the files that they leave in their data
// directories. It learns of a secret when a process is started with it, so no list can
// forget one. TestMain asks it at the end.
type leaks struct {
	mu      sync.Mutex // guards all below
	forms   map[[leastForm]byte][]form
	begins  [1 << 16 / 64]uint64 // by the first two bytes of a form, whether there is any: most text has none
	known   map[string]bool
	longest int
	found   []string
	files   int   // that were looked through
	bytes   int64 // in all
}

// form is a way to write a secret.
type form struct {
	text string
	what string // it is, for people: never the secret itself
}

// leastForm is the length, in bytes, below which a value is no secret that could be
// told from other text.
const leastForm = 10

// theLeaks is the suite's.
var theLeaks = newLeaks()

// newLeaks makes one that knows what no process may write of any request to the store.
func newLeaks() *leaks {
	l := &leaks{forms: make(map[[leastForm]byte][]form), known: make(map[string]bool)}
	for _, word := range []string{"AWS4-HMAC-SHA256", "X-Amz-Signature", "X-Amz-Security-Token", "Proxy-Authorization"} {
		l.add(form{word, "part of a signed request"})
	}
	return l
}

func (l *leaks) add(f form) {
	if len(f.text) < leastForm || l.known[f.text] {
		return
	}
	l.known[f.text] = true
	first := [leastForm]byte([]byte(f.text[:leastForm]))
	l.forms[first] = append(l.forms[first], f)
	at := int(f.text[0])<<8 | int(f.text[1])
	l.begins[at/64] |= 1 << (at % 64)
	l.longest = max(l.longest, len(f.text))
}

// learn has a secret looked for, however it is written.
func (l *leaks) learn(what, secret string) {
	if len(secret) < leastForm {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	quoted, _ := json.Marshal(secret)
	for how, text := range map[string]string{
		"": secret, " as JSON": strings.Trim(string(quoted), `"`), " quoted": strings.Trim(strconv.Quote(secret), `"`),
		" in a query": url.QueryEscape(secret), " in a path": url.PathEscape(secret), " in hex": hex.EncodeToString([]byte(secret)),
	} {
		l.add(form{text, what + how})
	}
	for _, by := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for shift := range 3 { // it may stand behind other bytes, as in user:password
			text := by.EncodeToString(append(make([]byte, shift), secret...))
			l.add(form{text[(shift*8+5)/6 : len(text)-1], what + " in base64"})
		}
	}
}

// secrets are the variables whose values are; of those that end in _FILE it is what the
// file holds, by lines, and of a proxy its password.
var secrets = []string{
	"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
	"AWS_ACCESS_KEY_ID_FILE", "AWS_SECRET_ACCESS_KEY_FILE", "AWS_SESSION_TOKEN_FILE", "S3DAEMON_TOKEN_FILE",
	"HTTP_PROXY", "HTTPS_PROXY", "S3_ENDPOINT_URL",
}

// learnFrom has the secrets of an environment looked for.
func (l *leaks) learnFrom(env []string) {
	for _, name := range secrets {
		value := setting(env, name)
		switch {
		case value == "":
		case strings.HasSuffix(name, "_FILE"):
			content, _ := os.ReadFile(value) // a test may mean it to be none
			for line := range strings.Lines(string(content)) {
				l.learn(name, strings.TrimSpace(line))
			}
		case strings.Contains(name, "PROXY") || name == "S3_ENDPOINT_URL":
			if u, err := url.Parse(value); err == nil && u.User != nil {
				password, _ := u.User.Password()
				l.learn("the password in "+name, password)
			}
		default:
			l.learn(name, value)
		}
	}
}

// search looks through text.
func (l *leaks) search(where string, text []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := 0; i+leastForm <= len(text); i++ {
		at := int(text[i])<<8 | int(text[i+1])
		if l.begins[at/64]&(1<<(at%64)) == 0 {
			continue
		}
		for _, f := range l.forms[[leastForm]byte(text[i:])] {
			if !bytes.HasPrefix(text[i:], []byte(f.text)) {
				continue
			}
			hit := where + ": " + f.what
			if !slices.ContainsFunc(l.found, func(old string) bool { return strings.HasPrefix(old, hit+", after") }) {
				line := text[bytes.LastIndexByte(text[:i], '\n')+1 : i]
				l.found = append(l.found, fmt.Sprintf("%s, after %q", hit, tail(line, 100)))
			}
		}
	}
}

// report returns what was found, a line each.
func (l *leaks) report() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.found)
}

// stream searches what is written to it piece by piece, as if it were whole.
type stream struct {
	leaks *leaks
	where string
	kept  []byte // the end of what came, which may be the beginning of a secret
}

func (s *stream) Write(p []byte) (int, error) {
	s.leaks.mu.Lock()
	keep := s.leaks.longest - 1
	s.leaks.bytes += int64(len(p))
	s.leaks.mu.Unlock()
	s.kept = append(s.kept, p...)
	s.leaks.search(s.where, s.kept)
	if len(s.kept) > keep {
		s.kept = append(s.kept[:0], s.kept[len(s.kept)-keep:]...)
	}
	return len(p), nil
}

// searchFiles looks through the files beneath a directory.
func (l *leaks) searchFiles(where, dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil // a test may have taken it away
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		l.mu.Lock()
		l.files++
		l.mu.Unlock()
		_, err = io.Copy(&stream{leaks: l, where: where + " " + entry.Name()}, f)
		return err
	})
}

// heardConn is a connection to a process: what it answers is searched.
type heardConn struct {
	net.Conn
	heard stream
}

func (c *heardConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.heard.Write(p[:n])
	return n, err
}

// dialDaemon connects to a daemon's address, as it logs it.
func dialDaemon(addr string) (net.Conn, error) {
	conn, err := dialPlain(context.Background(), addr)
	if err != nil {
		return nil, err
	}
	return &heardConn{Conn: conn, heard: stream{leaks: theLeaks, where: "an answer"}}, nil
}

// dialPlain connects to an address as the daemon logs it.
func dialPlain(ctx context.Context, addr string) (net.Conn, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", path
	}
	return new(net.Dialer).DialContext(ctx, network, addr)
}

// TestLeaksAreFound has a secret in every form in the midst of other text, and in
// pieces; in a process's output, an answer and a file.
func TestLeaksAreFound(t *testing.T) {
	const secret = `hunter2 "+/=&<é` + "\t!!"
	forms := map[string]string{
		"plain":           secret,
		"JSON":            func() string { b, _ := json.Marshal(secret); return string(b) }(),
		"Go":              strconv.Quote(secret),
		"query":           url.Values{"k": {secret}}.Encode(),
		"path":            url.PathEscape("a/" + secret),
		"base64":          base64.StdEncoding.EncodeToString([]byte(secret)),
		"base64 of more":  base64.StdEncoding.EncodeToString([]byte("me:" + secret + ":x")),
		"base64 of less":  base64.StdEncoding.EncodeToString([]byte("m:" + secret)),
		"base64 in a URL": base64.URLEncoding.EncodeToString([]byte("user:" + secret)),
		"hex":             hex.EncodeToString([]byte(secret)),
	}
	for name, text := range forms {
		for _, piece := range []int{1, 7, 1 << 20} {
			l := newLeaks()
			l.learn("the secret", secret)
			s := &stream{leaks: l, where: "here"}
			for part := range slices.Chunk([]byte("before "+text+" after\n"), piece) {
				s.Write(part)
			}
			if got := l.report(); len(got) != 1 || strings.Contains(got[0], "hunter2") {
				t.Errorf("%s in pieces of %d: found %q", name, piece, got)
			}
		}
	}
	l := newLeaks()
	l.learn("the secret", secret)
	l.search("other text", []byte("hunter2 \"+/=&<, hunter3, and x-amz-signature"))
	if got := l.report(); len(got) != 0 {
		t.Errorf("found %q", got)
	}

	// By the ways that the suite has.
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l = newLeaks()
	l.learnFrom([]string{"S3DAEMON_TOKEN_FILE=" + filepath.Join(dir, "file"), "HTTPS_PROXY=http://me:sesame-open@proxy", "AWS_SECRET_ACCESS_KEY=short"})
	out := newOutput()
	out.searched = stream{leaks: l, where: "output"}
	cmd := command("/bin/sh", []string{"S=" + secret}, out, "-c", `echo "it is $S"; echo "by way of sesame-open" >&2`)
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	here, there := net.Pipe()
	go func() {
		io.WriteString(there, "HTTP/1.1 200 OK\r\nX: "+secret+"\r\n\r\n")
		there.Close()
	}()
	if _, err := io.ReadAll(&heardConn{Conn: here, heard: stream{leaks: l, where: "answer"}}); err != nil {
		t.Fatal(err)
	}
	if err := l.searchFiles("files", dir); err != nil {
		t.Fatal(err)
	}
	for _, where := range []string{"output: S3DAEMON_TOKEN_FILE", "output: the password in HTTPS_PROXY", "answer: S3DAEMON", "files file: S3DAEMON"} {
		if !slices.ContainsFunc(l.report(), func(hit string) bool { return strings.HasPrefix(hit, where) }) {
			t.Errorf("no leak %q among %q", where, l.report())
		}
	}
	if got := theLeaks.report(); len(got) > 0 {
		t.Errorf("the suite has leaks: %s", strings.Join(got, "\n"))
	}
}
