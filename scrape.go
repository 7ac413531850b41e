package main

import (
	"bytes"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/lsst-dm/s3daemon/listen"
)

// After a gathering there is none for a while, longer the more it was for: with
// thousands who ask again and again they get a thousand answers a second in
// all, and one who asks alone hardly waits.
const (
	restForEach = time.Millisecond
	mostRest    = time.Second
)

// scrape serves the metrics of a registry. One gathering is under way at a time,
// however many ask, and what it gives is for all who asked before it began: its
// locks are those that pushes need, and nobody is told what was so before he
// asked.
type scrape struct {
	from prometheus.Gatherer

	mu   sync.Mutex // guards what follows
	next *gathering // that has yet to begin; nil where nobody has asked for one
	busy bool       // gather runs
}

// gathering is all metrics at one moment. What is in it may be read once it is
// done.
type gathering struct {
	askers int
	done   chan struct{}
	text   []byte
	err    error
}

var textFormat = expfmt.NewFormat(expfmt.TypeTextPlain)

// ServeHTTP answers in the text format.
func (s *scrape) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g := s.ask()
	ctx, end := listen.Yield(r.Context())
	select {
	case <-g.done:
		end()
	case <-ctx.Done(): // he has hung up, or made room
		end()
		return
	}
	if g.err != nil {
		http.Error(w, "the metrics could not be gathered: "+g.err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", string(textFormat))
	w.Header().Set("Content-Length", strconv.Itoa(len(g.text)))
	w.Write(g.text)
}

// ask returns the gathering that begins next.
func (s *scrape) ask() *gathering {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		s.next = &gathering{done: make(chan struct{})}
	}
	s.next.askers++
	if !s.busy {
		s.busy = true
		go s.gather()
	}
	return s.next
}

// gather makes one gathering after another, until nobody asks for more.
func (s *scrape) gather() {
	for {
		s.mu.Lock()
		g := s.next
		s.next, s.busy = nil, g != nil
		s.mu.Unlock()
		if g == nil {
			return
		}
		g.text, g.err = textOf(s.from)
		close(g.done)
		time.Sleep(min(time.Duration(g.askers)*restForEach, mostRest))
	}
}

func textOf(from prometheus.Gatherer) ([]byte, error) {
	families, err := from.Gather()
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	encoder := expfmt.NewEncoder(&text, textFormat)
	for _, f := range families {
		if err := encoder.Encode(f); err != nil {
			return nil, err
		}
	}
	return text.Bytes(), nil
}
