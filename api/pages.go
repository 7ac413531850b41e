package api

import (
	"bytes"
	"encoding/json"
	"runtime"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// A page of a thousand pushes is 2 MB of memory until its last byte has been
// taken, so that there are not as many at once as there may be callers. Those
// who wait for others' pages are few as well: they are served, and would take
// the places of callers who push.
const (
	smallPage = 10 // pushes; of pages of so many there may be any number
	mostPages = 8
	mostWait  = 100
)

// pageTimeout is how long a caller waits for others' large pages. Tests shorten
// it.
var pageTimeout = 2 * time.Second

// pages bounds the large pages that are made or written at once.
type pages struct{ line, made chan struct{} }

func newPages() *pages {
	return &pages{line: make(chan struct{}, mostPages+mostWait), made: make(chan struct{}, mostPages)}
}

// enter waits until one more may be made, and reports whether that came about.
func (p *pages) enter() bool {
	select {
	case p.line <- struct{}{}:
	default:
		return false
	}
	timer := time.NewTimer(pageTimeout)
	defer timer.Stop()
	select {
	case p.made <- struct{}{}:
		return true
	case <-timer.C:
		<-p.line
		return false
	}
}

// leave ends what enter allowed.
func (p *pages) leave() {
	<-p.made
	<-p.line
}

// encodeAtOnce is how many pushes of a page are encoded before others have their
// turn. The runtime lets a goroutine run for 10 ms, and with some that make
// pages at once a health check would wait for all of these, several times.
const encodeAtOnce = 16

// encodePage returns a page as one line of JSON.
func encodePage(p push.Page) []byte {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encode := func(v any) {
		_ = encoder.Encode(v)       // into memory, of types that can be encoded
		out.Truncate(out.Len() - 1) // without the end of the line
	}
	out.WriteString(`{"pushes":[`)
	for i, r := range p.Pushes {
		if i > 0 {
			out.WriteByte(',')
		}
		encode(completeReceipt(r))
		if i == 0 { // most are alike
			out.Grow(len(p.Pushes) * (out.Len() + 1))
		}
		if i%encodeAtOnce == encodeAtOnce-1 {
			runtime.Gosched()
		}
	}
	out.WriteByte(']')
	rest := out.Len()
	p.Pushes = nil
	encode(struct {
		push.Page
		Pushes *struct{} `json:"pushes,omitempty"`
	}{Page: p})
	out.Bytes()[rest] = ',' // what is not pushes has a brace of its own
	out.WriteByte('\n')
	return out.Bytes()
}
