package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// said is a name service that says the same to everything.
type said struct {
	addrs []string
	err   error
	asked atomic.Int64
}

func (s *said) lookup(context.Context, string, string) ([]netip.Addr, error) {
	s.asked.Add(1)
	if s.err != nil {
		return nil, s.err
	}
	var addrs []netip.Addr
	for _, text := range s.addrs {
		addrs = append(addrs, netip.MustParseAddr(text))
	}
	return addrs, nil
}

// listenOn opens a port on some addresses of the loopback, the same for all.
func listenOn(t *testing.T, hosts ...string) (port string) {
	t.Helper()
	for range 10 { // a port that is free on one may be taken on another
		port = "0"
		var listeners []net.Listener
		for _, host := range hosts {
			l, err := net.Listen("tcp", net.JoinHostPort(host, port))
			if err != nil {
				break
			}
			t.Cleanup(func() { l.Close() })
			listeners = append(listeners, l)
			_, port, _ = net.SplitHostPort(l.Addr().String())
		}
		if len(listeners) == len(hosts) {
			return port
		}
	}
	t.Fatal("there is no port that is free on all of them")
	return ""
}

// named is a Dialer whose names are looked up so.
func named(s *said) *Dialer {
	d := NewDialer(DialConfig{ConnectTimeout: 5 * time.Second, StallTimeout: 10 * time.Second})
	d.addresses.lookup = s.lookup
	return d
}

// dialHost makes a connection, and tells the address that it is to.
func dialHost(t *testing.T, d *Dialer, address string) (net.Conn, string) {
	t.Helper()
	conn, err := d.Dial(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
	return conn, host
}

// TestSpread: connections go to all addresses of a name alike, and one that was
// closed leaves room for another to the same.
func TestSpread(t *testing.T) {
	hosts := []string{"127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"}
	address := "store:" + listenOn(t, hosts...)
	names := &said{addrs: hosts}
	d := named(names)
	open := make(map[string][]net.Conn)
	for range 10 {
		conn, host := dialHost(t, d, address)
		open[host] = append(open[host], conn)
	}
	for _, host := range hosts {
		if n := len(open[host]); n < 2 || n > 3 {
			t.Errorf("%d connections to %s", n, host)
		}
	}
	for _, conn := range open["127.0.0.3"] {
		conn.Close()
		conn.Close() // which counts once
	}
	for range open["127.0.0.3"] {
		if _, host := dialHost(t, d, address); host != "127.0.0.3" {
			t.Errorf("one to %s, though there is none to 127.0.0.3", host)
		}
	}
	if n := names.asked.Load(); n != 1 {
		t.Errorf("the name was looked up %d times", n)
	}
}

// TestDeadAddress: one that refuses costs nothing but its refusal, and is tried
// last from then on.
func TestDeadAddress(t *testing.T) {
	address := "store:" + listenOn(t, "127.0.0.2", "127.0.0.3")
	d := named(&said{addrs: []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"}})
	for range 6 {
		if _, host := dialHost(t, d, address); host == "127.0.0.1" {
			t.Fatal("the test's port is somebody's")
		}
	}
	dead := netip.MustParseAddrPort(strings.Replace(address, "store", "127.0.0.1", 1))
	if d.addresses.avoid[dead].IsZero() || d.addresses.open[dead] != 0 {
		t.Errorf("avoided %v, open %v", d.addresses.avoid, d.addresses.open)
	}
}

// TestNoAddressTakes: where none takes a connection the first failure is told, and
// no address counts as open.
func TestNoAddressTakes(t *testing.T) {
	port := listenOn(t, "127.0.0.9") // nobody listens there on the others
	d := named(&said{addrs: []string{"127.0.0.1", "127.0.0.2"}})
	_, err := d.Dial(t.Context(), "tcp", "store:"+port)
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:"+port) || len(d.addresses.open) != 0 {
		t.Errorf("%v, open %v", err, d.addresses.open)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	d = named(&said{addrs: []string{"127.0.0.1", "127.0.0.2"}})
	if _, err := d.Dial(gone, "tcp", "store:"+port); !errors.Is(err, context.Canceled) && !strings.Contains(err.Error(), "canceled") || len(d.addresses.avoid) != 0 {
		t.Errorf("%v of one that was given up; avoided %v", err, d.addresses.avoid)
	}
}

// TestOrder has which address is tried first.
func TestOrder(t *testing.T) {
	at := func(n int) netip.AddrPort { return netip.MustParseAddrPort(fmt.Sprintf("10.0.0.%d:443", n)) }
	synctest.Test(t, func(t *testing.T) {
		a := newAddresses(nil, time.Second)
		order := func() (order string) {
			for left := []netip.AddrPort{at(1), at(2), at(3)}; len(left) > 0; {
				var next netip.AddrPort
				next, left = a.take(left)
				a.giveBack(next)
				order += next.Addr().String()[len("10.0.0."):]
			}
			return order
		}
		check := func(when, want string) {
			if got := order(); got != want {
				t.Errorf("%s: %s, want %s", when, got, want)
			}
		}
		check("at first, as the name service says", "123")
		a.take([]netip.AddrPort{at(1)})
		check("one is open", "231")
		a.failed(at(2))
		time.Sleep(time.Second)
		check("one failed", "312")
		a.failed(at(3))
		check("two failed", "123")
		time.Sleep(avoided - time.Second)
		check("the first of them is forgiven", "213")
		time.Sleep(time.Second)
		check("both are", "231")
		if len(a.avoid) != 0 {
			t.Errorf("%v are kept", a.avoid)
		}
	})
}

// TestNames: a name is looked up again now and then, and what is known of it
// outlives the name service.
func TestNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := &said{err: errors.New("no answer")}
		a := newAddresses(names.lookup, 5*time.Second)
		look := func(when, want string, asked int64) {
			t.Helper()
			got, err := a.of(t.Context(), "store:443")
			if fmt.Sprint(got) != want || err != nil && want != "[]" || names.asked.Swap(0) != asked {
				t.Errorf("%s: %v, %v", when, got, err)
			}
		}
		look("nothing is known", "[]", 1)
		names.err, names.addrs = nil, []string{"10.0.0.1", "::ffff:10.0.0.2"}
		look("the service is back", "[10.0.0.1:443 10.0.0.2:443]", 1)
		names.addrs = []string{"10.0.0.3"}
		look("at once again", "[10.0.0.1:443 10.0.0.2:443]", 0)
		time.Sleep(lookAgain)
		look("later", "[10.0.0.3:443]", 1)
		time.Sleep(lookAgain)
		names.err = errors.New("no answer")
		look("the service is away", "[10.0.0.3:443]", 1)
		look("and is not asked for every connection", "[10.0.0.3:443]", 0)
		if got, err := a.of(t.Context(), "[::1]:443"); fmt.Sprint(got) != "[[::1]:443]" || err != nil {
			t.Errorf("of an address: %v, %v", got, err)
		}
		for _, wrong := range []string{"store", "store:https", "store:65536"} {
			if got, err := a.of(t.Context(), wrong); err == nil {
				t.Errorf("of %s: %v", wrong, got)
			}
		}
		names.err, names.addrs = nil, nil
		if _, err := a.of(t.Context(), "other:443"); err == nil {
			t.Error("a name without an address has some")
		}
	})
}

// TestNameServiceThatIsSilent leaves the time to connect where addresses are known.
func TestNameServiceThatIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := &said{addrs: []string{"10.0.0.1"}}
		a := newAddresses(names.lookup, 5*time.Second)
		a.of(t.Context(), "store:443")
		a.lookup = func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		time.Sleep(lookAgain)
		begun := time.Now()
		if got, err := a.of(t.Context(), "store:443"); len(got) != 1 || err != nil || time.Since(begun) != 2500*time.Millisecond {
			t.Errorf("after %v: %v, %v", time.Since(begun), got, err)
		}
	})
}

// TestCurrent: a connection is to an address that has left when the name has had
// the same others for a while; not while it shows some of many in turn, nor
// because the name service is away.
func TestCurrent(t *testing.T) {
	at := func(addr string) net.Addr {
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(addr), 443))
	}
	synctest.Test(t, func(t *testing.T) {
		names := &said{addrs: []string{"10.0.0.1", "10.0.0.2"}}
		a := newAddresses(names.lookup, 5*time.Second)
		current := func(addr string) bool {
			defer synctest.Wait() // for the look in the background
			return a.current("store:443", at(addr))
		}
		// over has the name looked at for a while, and reports whether all the time
		// the address was current.
		over := func(d time.Duration, addr string, each func(n int)) bool {
			for n := range int(d / lookAgain) {
				each(n)
				if !current(addr) {
					return false
				}
				time.Sleep(lookAgain)
			}
			return true
		}
		none := func(int) {}
		if !current("10.0.0.9") {
			t.Error("a name that is not known has lost an address")
		}
		a.of(t.Context(), "store:443")
		if !over(time.Hour, "10.0.0.1", none) {
			t.Error("an address that is there has left")
		}
		names.addrs = []string{"10.0.0.3"}
		current("10.0.0.1") // which has it looked up
		if !over(time.Hour, "10.0.0.9", func(n int) { names.addrs = []string{fmt.Sprintf("10.0.0.%d", n%3)} }) {
			t.Error("an address has left a name that shows others in turn")
		}
		names.addrs = []string{"10.0.0.7", "10.0.0.8"}
		if !over(settled-lookAgain, "10.0.0.1", none) {
			t.Error("an address has left at once")
		}
		if over(settled, "10.0.0.1", func(n int) { names.addrs = []string{names.addrs[1], names.addrs[0]} }) {
			t.Error("an address never leaves")
		}
		if !current("10.0.0.8") {
			t.Error("one that came has left")
		}
		names.err = errors.New("no answer")
		if !over(time.Hour, "10.0.0.8", none) {
			t.Error("an address has left with the name service")
		}
		names.err = nil
		names.addrs = []string{"10.0.0.1"}
		current("10.0.0.8")
		names.asked.Store(0)
		if current("10.0.0.8"); names.asked.Load() != 0 {
			t.Error("the name service is asked each time")
		}
		if !a.current("not an address", at("10.0.0.1")) || !a.current("store:443", &net.UnixAddr{}) {
			t.Error("what is no address has left")
		}
	})
}

// TestShare: an address that says nothing leaves time for the next, and none is
// given up in a moment where there are many.
func TestShare(t *testing.T) {
	for _, tc := range []struct {
		left   time.Duration
		others int
		want   time.Duration
	}{
		{5 * time.Second, 0, 5 * time.Second},
		{20 * time.Second, 1, 10 * time.Second},
		{5 * time.Second, 7, leastShare},
		{time.Second, 7, time.Second},
	} {
		if got := share(tc.left, tc.others); got != tc.want {
			t.Errorf("of %v with %d others to come: %v", tc.left, tc.others, got)
		}
	}
}
