package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"testing"
)

// The proxy is what several tests rest on, so it is tested by itself: against
// a server that repeats each line.
func TestProxy(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			conn, err := echo.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	p, err := newProxy("tcp", echo.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()

	dial := func() net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", p.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	ask := func(conn net.Conn) string {
		t.Helper()
		fmt.Fprintln(conn, "hello")
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return line
	}

	first, second := dial(), dial()
	if a, b := ask(first), ask(second); a != "hello\n" || b != "hello\n" {
		t.Fatalf("through the proxy came %q and %q", a, b)
	}
	if p.open() != 2 || p.mostOpen() != 2 || p.allAccepted() != 2 || p.bytesSent() != 12 {
		t.Errorf("open %d, most %d, accepted %d, bytes %d; want 2, 2, 2, 12", p.open(), p.mostOpen(), p.allAccepted(), p.bytesSent())
	}

	first.Close()
	waitFor(t, "the closed connection to be counted off", func() bool { return p.open() == 1 })
	third := dial()
	ask(third)
	if p.open() != 2 || p.mostOpen() != 2 || p.allAccepted() != 3 {
		t.Errorf("open %d, most %d, accepted %d; want 2, 2, 3", p.open(), p.mostOpen(), p.allAccepted())
	}

	p.hold()
	answered := make(chan string, 1)
	go func() {
		fmt.Fprintln(second, "held")
		line, _ := bufio.NewReader(second).ReadString('\n')
		answered <- line
	}()
	waitFor(t, "the line to be held", func() bool { return p.nowHeld() == 1 })
	if p.bytesSent() != 18 {
		t.Errorf("%d bytes went on, want 18: a hold lets none pass", p.bytesSent())
	}
	p.release()
	if line := <-answered; line != "held\n" {
		t.Errorf("after the hold came %q", line)
	}
	p.holdAfter(3)
	go fmt.Fprintln(second, "on")
	go fmt.Fprintln(third, "on")
	waitFor(t, "a line to pass and one to be held", func() bool { return p.nowHeld() == 1 && p.bytesSent() == 18+5+3 })
	fourth := dial()
	p.holdThese()
	if line := ask(fourth); line != "hello\n" || p.nowHeld() != 1 {
		t.Errorf("beside the line that is held came %q, and %d are held", line, p.nowHeld())
	}

	p.close()
	if p.open() != 0 {
		t.Errorf("%d connections are open after close", p.open())
	}
	if _, err := fourth.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlived the proxy")
	}
	if conn, err := net.Dial("tcp", p.listener.Addr().String()); err == nil {
		conn.Close()
		t.Error("a closed proxy took a connection")
	}
}
