package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// fault is what a fault proxy does to one request. The zero fault passes it.
type fault struct {
	what what
	// before, where it is not nil, holds the request up until it is closed, or
	// something comes out of it: not a byte of the body is read until then.
	before <-chan struct{}
	// after holds up the answer in the same way, and what is done in its place.
	// The body has been read by then, and where it passes, the store has it.
	after <-chan struct{}
	// ops are the operations that random plans have it for, separated by spaces;
	// "" for all.
	ops string
	// at is where in the body, or in the answer, it happens; nil for the middle.
	at place
	// early answers or resets without the body having been read.
	early bool
	// pace is the time from one byte to the next of an answer that trickles, and
	// from one piece to the next of a body that is read slowly.
	pace time.Duration
	// unaware makes of the store one that does not know checksums in headers: it
	// never sees one, and nobody gets one from it. It goes with whatever the rest
	// of the fault is.
	unaware bool
	// The answer of answerInstead and answerAfter, as a store words it.
	status     int
	code       string
	retryAfter string // a header; "" for none
}

// what becomes of a request.
type what int

const (
	passes        what = iota // to the store, and the answer back
	resetFirst                // the connection is reset; the store never hears of it
	resetMidway               // the same in the middle of the body: the store has a request that breaks off
	answerInstead             // with an error; the store never hears of it
	answerAfter               // with an error, though the store has done as it was asked
	cutAfter                  // the connection is reset when the store has done it, in place of the answer
	cutAnswer                 // the same in the middle of the answer
	flips                     // to the store, with one bit of the body changed
	readsSlowly               // to the store, with the body read piece by piece
	stopsReading              // in the middle of the body the other side reads no more, and says nothing, for ever
	wrongETag                 // the answer has another ETag
	wrongChecksum             // the answer has another CRC64NVME
	truncatesXML              // the answer's body breaks off, in an answer that is whole
	trickles                  // the answer comes byte by byte
	tricklesBody              // the same, after a head that came at once
	closes                    // the answer ends the connection, and says so
	resetsIdle                // the connection is reset when the answer is there and nothing goes on
)

var whatNames = map[what]string{
	passes: "passes", resetFirst: "reset first", resetMidway: "reset midway", answerInstead: "answered instead",
	answerAfter: "answered after", cutAfter: "cut after", cutAnswer: "cut in the answer", flips: "flipped", readsSlowly: "read slowly",
	stopsReading: "stopped reading", wrongETag: "wrong ETag", wrongChecksum: "wrong checksum", truncatesXML: "truncated XML",
	trickles: "trickled", tricklesBody: "trickled body", closes: "closed", resetsIdle: "reset when idle",
}

func (w what) String() string { return whatNames[w] }

// place is an offset among size bytes, in the exchange n. size is 1 or more.
type place func(n int, size int64) int64

// offset is the place with that many bytes before it, or the last byte.
func offset(before int64) place { return func(_ int, size int64) int64 { return min(before, size-1) } }

// anywhere is a place that the number of the exchange decides.
func anywhere(n int, size int64) int64 {
	return rand.New(rand.NewPCG(uint64(n), uint64(size))).Int64N(size)
}

// place returns where the fault happens.
func (f fault) place(n int, size int64) int64 {
	if f.at == nil {
		return size / 2
	}
	return f.at(n, size)
}

// The errors that a store has for a bad moment.
var (
	slowDown      = fault{status: http.StatusServiceUnavailable, code: "SlowDown"}
	internalError = fault{status: http.StatusInternalServerError, code: "InternalError"}
	tooMany       = fault{status: http.StatusTooManyRequests, code: "TooManyRequests"}
	// For a body that came too slowly.
	requestTimeout = fault{status: http.StatusBadRequest, code: "RequestTimeout"}
	// Of a completion: the status goes out before the store has come to the end.
	errorIn200 = fault{status: http.StatusOK, code: "InternalError"}
)

// instead answers so in the store's place.
func (f fault) instead() fault { f.what = answerInstead; return f }

// afterStoring answers so when the store has done what was asked.
func (f fault) afterStoring() fault { f.what = answerAfter; return f }

// request is what a plan goes by.
type request struct {
	n            int // from 1, in the order of arrival
	op           string
	method, path string // the path as it was sent, with the query
	bucket, key  string
	size         int64 // of the body; -1 where it was not said
	traceparent  string
}

// plan decides what becomes of each request. It is called by one goroutine at
// a time.
type plan func(request) fault

// passAll is the plan of a store without faults.
func passAll(request) fault { return fault{} }

// everyNth has the fault for every n-th request.
func everyNth(n int, f fault) plan {
	return func(r request) fault {
		if r.n%n == 0 {
			return f
		}
		return fault{}
	}
}

// everyNthOf has one of the faults for every n-th request. The seed and a
// request's number decide which.
func everyNthOf(n int, seed uint64, faults ...fault) plan {
	random := randomFaults(seed, 1, faults...)
	return func(r request) fault {
		if r.n%n == 0 {
			return random(r)
		}
		return fault{}
	}
}

// only has the plan for the operations named, separated by spaces, and passes
// the rest.
func only(ops string, p plan) plan {
	return func(r request) fault {
		for op := range strings.FieldsSeq(ops) {
			if op == r.op {
				return p(r)
			}
		}
		return fault{}
	}
}

// atLeast has the plan for requests with so large a body, and passes the rest.
func atLeast(size int64, p plan) plan {
	return func(r request) fault {
		if r.size >= size {
			return p(r)
		}
		return fault{}
	}
}

// always has one fault for every request.
func always(f fault) plan { return func(request) fault { return f } }

// byKey has a plan for each key, and passes the others.
func byKey(plans map[string]plan) plan {
	return func(r request) fault {
		if p := plans[r.key]; p != nil {
			return p(r)
		}
		return fault{}
	}
}

// unaware is the plan on a store that does not know checksums in headers.
func unaware(p plan) plan {
	return func(r request) fault {
		f := p(r)
		f.unaware = true
		return f
	}
}

// once has the fault for the first request that comes, and passes the rest.
func once(f fault) plan {
	used := false
	return func(request) fault {
		if used {
			return fault{}
		}
		used = true
		return f
	}
}

// randomFaults has one of the faults for a share of the requests. The seed and
// a request's number decide, so that what happens at random can happen again.
func randomFaults(seed uint64, rate float64, faults ...fault) plan {
	return func(r request) fault {
		dice := rand.New(rand.NewPCG(seed, uint64(r.n)))
		if dice.Float64() >= rate {
			return fault{}
		}
		var fitting []fault
		for _, f := range faults {
			if f.ops == "" || slices.Contains(strings.Fields(f.ops), r.op) {
				fitting = append(fitting, f)
			}
		}
		return fitting[dice.IntN(len(fitting))]
	}
}

// Operations by what faults may befall them.
const (
	carriers  = "PutObject UploadPart"                          // carry a file's bytes
	vouching  = "PutObject UploadPart CompleteMultipartUpload"  // are answered with an ETag
	inXML     = "CreateMultipartUpload CompleteMultipartUpload" // are answered in XML
	lateWords = "CompleteMultipartUpload"                       // are answered with a status before they have succeeded
)

// allFaults are those of every kind that end by themselves.
func allFaults() []fault {
	busy := slowDown
	busy.retryAfter = "0"
	early, late := internalError.instead(), errorIn200
	early.early = true
	late.ops = lateWords
	return []fault{
		{what: resetFirst}, {what: resetFirst, early: true},
		{what: resetMidway, ops: carriers}, {what: resetMidway, ops: carriers, at: anywhere},
		{what: cutAfter}, {what: cutAnswer}, {what: cutAnswer, at: anywhere},
		slowDown.instead(), busy.instead(), internalError.instead(), early, tooMany.instead(), requestTimeout.instead(),
		internalError.afterStoring(), slowDown.afterStoring(), late.instead(), late.afterStoring(),
		{what: flips, ops: carriers, at: anywhere}, {what: wrongETag, ops: vouching}, {what: wrongChecksum, ops: vouching},
		{what: truncatesXML, ops: inXML, at: anywhere}, {what: tricklesBody, ops: inXML, pace: time.Millisecond},
		{what: trickles, pace: time.Millisecond}, {what: closes}, {what: resetsIdle},
	}
}

// operationOf names what S3 is asked for.
func operationOf(method string, query map[string][]string, key string) string {
	_, uploads := query["uploads"]
	_, id := query["uploadId"]
	switch {
	case key == "":
		return method + " bucket"
	case method == "POST" && uploads:
		return "CreateMultipartUpload"
	case method == "POST" && id:
		return "CompleteMultipartUpload"
	case method == "PUT" && id:
		return "UploadPart"
	case method == "DELETE" && id:
		return "AbortMultipartUpload"
	case method == "GET" && id:
		return "ListParts"
	case method == "PUT" && len(query) <= 1: // x-id
		return "PutObject"
	case method == "HEAD":
		return "HeadObject"
	case method == "GET":
		return "GetObject"
	}
	return method
}

// writeError answers as S3 does when it cannot.
func (f fault) writeError(w http.ResponseWriter, n int) {
	body := fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?>`+"\n"+
		`<Error><Code>%s</Code><Message>A fault of the test's.</Message><RequestId>fault-%d</RequestId></Error>`, f.code, n)
	w.Header().Set("Content-Type", "application/xml")
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	if f.retryAfter != "" {
		w.Header().Set("Retry-After", f.retryAfter)
	}
	w.WriteHeader(f.status)
	io.WriteString(w, body)
}

// gate holds requests up: as the before or after of a fault.
type gate struct {
	wait chan struct{}
	once sync.Once
}

func newGate() *gate { return &gate{wait: make(chan struct{})} }

// open lets all pass, now and later. It may be called twice.
func (g *gate) open() { g.once.Do(func() { close(g.wait) }) }

// one lets one pass that waits, or the next that comes.
func (g *gate) one() error {
	select {
	case g.wait <- struct{}{}:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("nobody came to the gate in %v", patience)
	}
}
