package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lsst-dm/s3daemon/listen"
)

// Limits of the HTTP servers. A request's body is bounded by package api, and
// how long an answer may lie by package listen; there is none on how long it may
// take to come.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 5 * time.Minute
	maxHeader     = 8 << 10
)

// front is an HTTP server with the addresses that it serves on, which callers
// reach through a door.
type front struct {
	http.Server
	door      *listen.Door
	listeners []net.Listener
	serving   sync.WaitGroup
}

// openFront listens on the addresses that the variable has, perhaps none. The
// front serves once it has been given a Handler, and started.
func openFront(variable string, addrs []string, socket listen.Socket, door *listen.Door) (*front, error) {
	listeners, err := listen.All(addrs, socket)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", variable, err)
	}
	f := &front{door: door, Server: http.Server{
		ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		DisableGeneralOptionsHandler: true, // OPTIONS * too goes through the guard
		ConnState:                    door.ConnState,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return connected(door.ConnContext(ctx, c), c)
		},
	}}
	for _, l := range listeners {
		f.listeners = append(f.listeners, door.Guard(l))
	}
	return f, nil
}

// start serves, and calls failed if that ends before stopListening.
func (f *front) start(failed context.CancelCauseFunc) {
	for _, l := range f.listeners {
		f.serving.Go(func() {
			err := f.Serve(l) // with an error in any case
			failed(fmt.Errorf("serve on %s: %w", listen.Address(l), err))
		})
	}
}

func (f *front) addresses() []string {
	var addrs []string
	for _, l := range f.listeners {
		addrs = append(addrs, listen.Address(l))
	}
	return addrs
}

// stopListening lets nobody new in. Connections that are open stay.
func (f *front) stopListening() {
	listen.Close(f.listeners)
	f.serving.Wait()
}

// end closes the connections, once their answers have been written.
func (f *front) end(limit time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if f.Shutdown(ctx) != nil {
		f.Close() // somebody does not read his answer
	}
}

// Close closes everything at once.
func (f *front) Close() error {
	listen.Close(f.listeners) // which Serve may not have seen
	return f.Server.Close()
}

// ofListener labels the metrics of a door.
func ofListener(name string, registry prometheus.Registerer) prometheus.Registerer {
	return prometheus.WrapRegistererWith(prometheus.Labels{"listener": name}, registry)
}
