package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// few is a store that takes so many connections at a time.
type few struct {
	takes int
	more  func() (net.Conn, error) // what becomes of any further

	mu         sync.Mutex
	open, most int
}

func (f *few) dial(ctx context.Context, network, address string) (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == f.takes {
		return f.more()
	}
	f.open++
	f.most = max(f.most, f.open)
	near, _ := piped(func(conn net.Conn, req *http.Request) { time.Sleep(30 * time.Second); agree(conn, req) })(ctx, network, address)
	return &closing{Conn: near, closed: func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.open--
	}}, nil
}

// cut is a connection that the other end ends as soon as it is there.
type cut struct {
	net.Conn
	err error
}

func (c cut) Read([]byte) (int, error)  { return 0, c.err }
func (c cut) Write([]byte) (int, error) { return 0, syscall.EPIPE }

func cutBy(err error) (net.Conn, error) {
	near, _ := net.Pipe()
	return cut{near, err}, nil
}

// turnings are the ways in which a store has no more connections.
var turnings = map[string]func() (net.Conn, error){
	"refused": func() (net.Conn, error) { return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED} },
	"reset":   func() (net.Conn, error) { return cutBy(syscall.ECONNRESET) },
	"closed":  func() (net.Conn, error) { return cutBy(io.EOF) },
}

// TestStoreThatTakesFew: a store that takes five connections serves all over these,
// however long it takes, and is asked for more now and then only.
func TestStoreThatTakesFew(t *testing.T) {
	const takes, places, requests = 5, 25, 12
	for name, more := range turnings {
		for _, kept := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := &few{takes: takes, more: more}
					cfg := usual(f.dial)
					cfg.Connections = places
					tr := newTransport(t, cfg)
					if kept {
						tr.Keep(&url.URL{Scheme: "http", Host: "store"})
						time.Sleep(10 * time.Second)
					}
					for range 3 {
						var all sync.WaitGroup
						for range requests {
							all.Go(func() {
								_, err := put(tr, t.Context(), "http://store", 100, zeros(100))
								if broken, ok := errors.AsType[*BrokenError](err); ok && broken.Vouched {
									_, err = put(tr, t.Context(), "http://store", 100, zeros(100))
								}
								if err != nil {
									t.Error(err)
								}
							})
						}
						begun := time.Now()
						all.Wait()
						if took := time.Since(begun); took > (requests/takes+1)*30*time.Second {
							t.Errorf("it took %v", took)
						}
					}
					before := tr.Totals().Dials
					if most := int64(places + 2*requests + 3*90/30 + 6); before > most {
						t.Errorf("%d connections were begun, want at most %d", before, most)
					}
					time.Sleep(10 * time.Minute)
					if n := tr.Totals().Dials - before; n > int64(10*time.Minute/mostPause)+1 || f.most != takes || isOpen(tr) != takes {
						t.Errorf("then %d, and %d are open", n, isOpen(tr))
					}
					f.mu.Lock()
					f.takes = places
					f.mu.Unlock()
					if kept {
						time.Sleep(time.Minute)
						if n := isOpen(tr); n != places {
							t.Errorf("%d are open once it takes more", n)
						}
					}
				})
			})
		}
	}
}

// TestOneThatIsTurnedAway: a connection that ends before anything has come on it says
// nothing of the store where others are sound, and else is what it is.
func TestOneThatIsTurnedAway(t *testing.T) {
	for _, name := range []string{"reset", "closed"} {
		for takes, vouched := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				f := &few{takes: takes, more: turnings[name]}
				cfg := usual(f.dial)
				cfg.Connections = 2
				tr := newTransport(t, cfg)
				if takes > 0 {
					go put(tr, t.Context(), "http://store", 100, zeros(100))
					synctest.Wait()
				}
				_, err := put(tr, t.Context(), "http://store", 100, zeros(100))
				if broken, ok := errors.AsType[*BrokenError](err); !ok || broken.Vouched != vouched || broken.Untaken != vouched || broken.Reused {
					t.Errorf("%s, %d sound: %#v", name, takes, err)
				}
				time.Sleep(time.Minute)
			})
		}
	}
}

// TestNoneHasAnAnswer: a store that takes connections and ends each with its first
// request is vouched for by those that have had none yet, but not for long.
func TestNoneHasAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const places = 3
		cfg := usual(piped(func(conn net.Conn, _ *http.Request) { conn.Close() }))
		cfg.Connections = places
		tr := newTransport(t, cfg)
		tr.Keep(&url.URL{Scheme: "http", Host: "store"})
		synctest.Wait()
		for n := 1; n <= places; n++ {
			_, err := put(tr, t.Context(), "http://store", 100, zeros(100))
			if broken, ok := errors.AsType[*BrokenError](err); !ok || broken.Vouched != (n < places) {
				t.Errorf("the one at %d: %#v", n, err)
			}
		}
	})
}

// TestAllAreTurnedAway: once the last sound connection is lost, those that the store
// takes and resets in its place vouch for none of each other, until one has an answer.
func TestAllAreTurnedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const places = 5
		var mu sync.Mutex
		var open []net.Conn
		gone := false
		cfg := usual(func(ctx context.Context, network, address string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			if gone {
				return cutBy(syscall.ECONNRESET)
			}
			near, err := piped(func(conn net.Conn, req *http.Request) { time.Sleep(time.Second); agree(conn, req) })(ctx, network, address)
			open = append(open, near)
			return near, err
		})
		cfg.Connections = places
		tr := newTransport(t, cfg)
		var all sync.WaitGroup
		for range places {
			all.Go(func() { put(tr, t.Context(), "http://store", 100, zeros(100)) })
		}
		all.Wait()
		time.Sleep(time.Minute)
		mu.Lock()
		gone = true
		for _, conn := range open {
			conn.Close()
		}
		mu.Unlock()
		synctest.Wait() // until that has been noticed
		for range 3 * places {
			all.Go(func() {
				_, err := put(tr, t.Context(), "http://store", 100, zeros(100))
				if broken, ok := errors.AsType[*BrokenError](err); ok && !broken.Reused && broken.Vouched {
					t.Errorf("%#v", err)
				}
			})
		}
		all.Wait()
		mu.Lock()
		gone = false
		mu.Unlock()
		time.Sleep(time.Minute)
		if _, err := put(tr, t.Context(), "http://store", 100, zeros(100)); err != nil {
			t.Error(err)
		}
		if e := tr.pool.ends[host{"http", "store:80"}]; e == nil || e.turned != 0 {
			t.Errorf("once one has an answer: %+v", e)
		}
	})
}

// TestRefusedInOutage: what the gate refuses is no sign that the store takes no more,
// and its request hears of it at once.
func TestRefusedInOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		f := &few{takes: 2}
		tr := many(t, 2, &far{})
		tr.maker.http.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			if down.Load() {
				return nil, &dialError{ErrNotTried}
			}
			conn, err := f.dial(ctx, network, address)
			of := makingOf(ctx)
			of.dialed, of.conn = address, &outlet{Conn: metered(conn)}
			return of.conn, err
		}
		go put(tr, t.Context(), "http://store", 100, zeros(100))
		synctest.Wait()
		down.Store(true)
		begun := time.Now()
		if _, err := put(tr, t.Context(), "http://store", 100, zeros(100)); !errors.Is(err, ErrNotTried) || time.Since(begun) > 0 {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		down.Store(false)
		if _, err := put(tr, t.Context(), "http://store", 100, zeros(100)); err != nil || time.Since(begun) != 30*time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
}

// TestUnused: where a store ends idle connections at once, only those are replaced that
// were used, and these not often.
func TestUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const places = 5
		i := new(impatient)
		i.limit.Store(int64(2 * time.Second))
		tr := kept(t, places, i)
		time.Sleep(time.Second)
		if _, err := put(tr, t.Context(), "http://store", 100, zeros(100)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(scoutEvery / 2)
		if n := tr.Totals().Dials; n < places+1 || n > places+2 {
			t.Errorf("%d were begun", n)
		}
	})
}
