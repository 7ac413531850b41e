package client

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"
)

// canned is a connection to a daemon that answers whatever it is asked with
// the same receipt. It has no goroutine and no socket, so that what is measured
// is what the client itself costs.
type canned struct {
	net.Conn
	answer strings.Reader
}

const cannedAnswer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 19\r\n\r\n" + `{"state":"done"}` + "   "

func (c *canned) Write(b []byte) (int, error) {
	c.answer.Reset(cannedAnswer)
	return len(b), nil
}
func (c *canned) Read(b []byte) (int, error)  { return c.answer.Read(b) }
func (c *canned) Close() error                { return nil }
func (c *canned) SetDeadline(time.Time) error { return nil }

// BenchmarkPush is the client's own part of a small push.
func BenchmarkPush(b *testing.B) {
	daemon, err := New(DefaultURL, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer daemon.Close()
	daemon.dial = func(context.Context) (net.Conn, error) { return &canned{}, nil }
	b.ReportAllocs()
	for b.Loop() {
		if err := daemon.Push(b.Context(), "/data/2026-11-23/r22_s11.fits", "s3://raw/2026-11-23/r22_s11.fits"); err != nil {
			b.Fatal(err)
		}
	}
}
