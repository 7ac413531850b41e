package transport

import (
	"context"
	"io"
	"math"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// Exchange is one request as its caller sees it: what he asks for beyond the
// request itself, and how far it is. It travels in the request's context, and
// serves one request.
type Exchange struct {
	// Answer, if it is not 0, is the limit for the head of the answer, and again
	// for the rest of it, in place of the usual ones: there are requests to which
	// a store says 200 first, and then sends white space while it works.
	Answer time.Duration

	// Enough is the rate, in bytes a second, at which a connection will do to begin
	// at that is to carry more than a few packets: the least warm of those is taken,
	// or the warmest if there is none. 0: the warmest; negative: any, the least warm.
	Enough float64

	// Unshared has the request's body not take turns with others: it is there to find
	// out what the link carries.
	Unshared bool

	// Connected, if it is not nil, is called when the request has its connection.
	Connected func()

	transit atomic.Pointer[transit]
	times   Times
}

// Times is where the time of a request went, one after the other.
type Times struct {
	Connect time.Duration // until it had a connection
	Send    time.Duration // until the store had acknowledged all of it
	Store   time.Duration // until the store began to answer
}

// Times returns where the time went, once Do has returned. Of a request that
// failed it has what there was up to then.
func (x *Exchange) Times() Times { return x.times }

// enough returns from which rate on a connection will do for a body of that many
// bytes.
func (x *Exchange) enough(body int64) float64 {
	switch {
	case body <= initialWindow:
		return 0
	case x == nil || x.Enough == 0:
		return math.Inf(1)
	}
	return x.Enough
}

type exchangeKey struct{}

// With returns a context for the exchange's request.
func With(ctx context.Context, x *Exchange) context.Context {
	return context.WithValue(ctx, exchangeKey{}, x)
}

func exchangeOf(ctx context.Context) *Exchange {
	x, _ := ctx.Value(exchangeKey{}).(*Exchange)
	return x
}

// Acknowledged returns how many bytes of the request's body the store has
// acknowledged by now, for bodies that do not leave in one packet: all of them
// once it has said success; before that rather too few, since what may be of the
// head is not counted.
func (x *Exchange) Acknowledged() int64 {
	if t := x.transit.Load(); t != nil {
		return t.acknowledged()
	}
	return 0
}

// Discard has the kernel forget what it has taken of the request's body and not
// sent, if the connection is closed: for one who is about to cancel a request of
// which nothing more is to arrive. It does nothing to a body that leaves in one packet.
func (x *Exchange) Discard() {
	if t := x.transit.Load(); t != nil && !t.done.Load() {
		discard(t.conn)
	}
}

// transit is a body on its way over a connection.
type transit struct {
	conn net.Conn
	body *countedBody
	head int64 // what the connection had acknowledged before the body, at most
	last atomic.Int64
	done atomic.Bool // the store said so
}

// begin notes which connection a request goes out on. It returns what that had
// acknowledged before.
func (x *Exchange) begin(conn net.Conn, req *http.Request, body *countedBody) (acked int64) {
	p, _ := progressOf(conn)
	x.transit.Store(&transit{conn: conn, body: body, head: p.acked + longestHead(req)})
	return p.acked
}

// acknowledged counts from where the connection was before. Under TLS the
// records' frames count too, so what was read of the body is the limit. What a
// later request on the connection sends cannot count, since by then all of this
// body was acknowledged.
func (t *transit) acknowledged() int64 {
	if t.done.Load() {
		return t.body.read.Load()
	}
	if p, ok := progressOf(t.conn); ok {
		t.last.Store(max(0, min(p.acked-t.head, t.body.read.Load())))
	}
	return t.last.Load()
}

// succeeded notes that the store said that it has all of the body.
func (x *Exchange) succeeded() {
	if t := x.transit.Load(); t != nil {
		t.done.Store(true)
	}
}

// longestHead is the most bytes that the head of the request may have, net/http's
// own headers included.
func longestHead(req *http.Request) int64 {
	const own = 512 // the request line's end, Content-Length, Connection, Accept-Encoding, User-Agent, what a proxy wants
	n := own + len(req.Method) + len(req.URL.String()) + len(req.Host)
	for name, values := range req.Header {
		for _, v := range values {
			n += len(name) + len(v) + len(": \r\n")
		}
	}
	return int64(n)
}

// countedBody counts what the connection has read of a request's body.
type countedBody struct {
	io.ReadCloser
	read   atomic.Int64
	failed atomic.Bool // other than by its end
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read.Add(int64(n))
	if err != nil && err != io.EOF {
		b.failed.Store(true)
	}
	return n, err
}
