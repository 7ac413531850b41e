package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"runtime"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// A page is made in pieces, and each is written before the next is made, so that
// a caller who does not read has some KB, however long a list he asked for. To
// make a piece of a large page takes one of a few places, since it takes time.
// Those who wait for one are few as well, until they have their first piece:
// they are served, and would take the places of callers who push.
const (
	smallPage    = 10 // pushes; of pages of so many any number may be made
	mostPages    = 8
	mostSearches = 2   // each looks at all there is; they have places of their own, so that other pages need not wait for them
	mostWait     = 100 // for either

	firstPiece = 4        // pushes, when nothing is known of their size
	mostPiece  = 64       // pushes
	pieceBytes = 16 << 10 // what a piece is to have
)

// pageTimeout is how long a caller waits for others' large pages. Tests shorten
// it.
var pageTimeout = 2 * time.Second

// pages bounds the large pages, or the searches, that are made at once.
type pages struct{ line, made chan struct{} }

func newPages(most int) *pages {
	return &pages{line: make(chan struct{}, most+mostWait), made: make(chan struct{}, most)}
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

// again waits for the place of another piece, and enough ends that.
func (p *pages) again()  { p.made <- struct{}{} }
func (p *pages) enough() { <-p.made }

// writePage answers with the page that a filter selects, as one line of JSON, and
// with as many pending as a barrier has found, if that is not negative.
func (a *api) writePage(w http.ResponseWriter, r *http.Request, f push.Filter, pending int) {
	left := cmp.Or(f.Limit, push.DefaultPage)
	places := a.pages
	if f.Text != "" {
		places = a.searches
	}
	again, leave, enough := places.again, places.leave, places.enough
	if left <= smallPage && f.Text == "" {
		again, leave, enough = nothing, nothing, nothing
	} else if !places.enter() {
		a.fail(w, "", tooMany("as many long lists are asked for as may be: ask again in a moment, or for less (limit=%d, and no text)", smallPage))
		return
	}
	f.Limit = min(left, firstPiece)
	p, err := a.makePiece(r.Context(), f, leave)
	if err != nil {
		a.fail(w, "", err)
		return
	}
	if pending < 0 {
		pending = p.pending
	}
	w.Header().Set("Content-Type", "application/json")
	_, err = io.WriteString(w, `{"pushes":[`)
	for first := true; err == nil; first = false {
		text := p.text
		p.text = nil
		if first {
			text = bytes.TrimPrefix(text, []byte{','})
		}
		if _, err = w.Write(text); err != nil {
			break
		}
		if left -= p.pushes; left == 0 || p.next.IsZero() || r.Method == http.MethodHead {
			break
		}
		f.Before, f.Limit = p.next, min(left, mostPiece, max(1, pieceBytes*p.pushes/(len(text)+1)))
		again()
		p, err = a.makePiece(r.Context(), f, enough)
	}
	if err != nil { // he has left, or the rest cannot be read: half a page is none
		panic(http.ErrAbortHandler)
	}
	end := push.Page{Pending: pending}
	if !p.next.IsZero() {
		end.Next = p.next.String()
	}
	text := encode(struct {
		push.Page
		Pushes *struct{} `json:"pushes,omitempty"`
	}{Page: end})
	text[0] = ',' // it was a brace
	w.Write(append(append([]byte{']'}, text...), '\n'))
}

func nothing() {}

// piece is what is written of some pushes, each with a comma before it, and what
// else their list says.
type piece struct {
	text    []byte
	pushes  int
	next    push.ID
	pending int
}

// makePiece makes one, and calls made when that is over.
func (a *api) makePiece(ctx context.Context, f push.Filter, made func()) (piece, error) {
	defer made()
	page, err := a.Queue.List(ctx, f, 0)
	if err != nil {
		return piece{}, err
	}
	p := piece{pushes: len(page.Pushes), pending: page.Pending}
	if page.Next != "" {
		if p.next, err = push.ParseID(page.Next); err != nil {
			return piece{}, err
		}
	}
	var text bytes.Buffer
	for _, r := range page.Pushes {
		text.WriteByte(',')
		text.Write(encode(CompleteReceipt(r)))
	}
	p.text = text.Bytes()
	runtime.Gosched() // the runtime lets a goroutine run for 10 ms, and a health check would wait for many of these
	return p, nil
}

// encode returns a value as JSON.
func encode(v any) []byte {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(v) // into memory, of a type that can be encoded
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}
