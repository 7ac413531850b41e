// Package legacy keeps the line protocol of the first s3daemon alive in front
// of the present one. Programs that open TCP port 15555 themselves speak it,
// and must not notice that the daemon behind was replaced.
//
// # The protocol
//
// One request a connection. The client sends a line
//
//	FILE SP DEST LF          /data/a.fits raw/2026/a.fits -> alias/bucket/key
//
// in pieces of any size. The server takes white space off the line's end and
// splits the rest at each space; there must be exactly two words, so neither
// name can hold a space. What a client sends after the newline is dropped. When
// the upload has ended, and however long that takes, the server answers with
// the seven bytes
//
//	Success
//
// without a newline, or with an error: one line without a newline, which never
// begins with "Success". Then it closes. There are clients that call recv once,
// with room for 4096 bytes, and decode it as UTF-8; so a reply is written in
// one piece, is at most [MaxReplyBytes] long, and is valid UTF-8.
//
// A client may close its sending side after the newline, or may close
// altogether without waiting: its push goes on either way. A relative FILE is
// taken from the server's working directory, where the first daemon opened it.
//
// # Bounds
//
// A line has at most 64 KiB and 30 s from the connection on. Up to 4096
// connections may be sending theirs; past that, the one that has been at it for
// longest is dropped, once it had at least a second. So slow clients stop
// nobody. Of the connections whose line is complete, Config.MaxClients are with
// the daemon; the others wait their turn, first come first served, and never
// time out. Their number is bounded by the process's descriptors only: three
// quarters of RLIMIT_NOFILE are for clients (at most half of them sending),
// and past that new ones wait in the kernel's queue until one has left.
//
// # The daemon going away
//
// Connecting to the daemon is retried for 5 s (Config.Patience), as are a 503 and
// a 429, with which it says that it takes no more pushes: a restart behind Serve
// costs a client nothing but time. (A push that the stopping daemon keeps for its
// next start is asked for once more all the same. The two are made in turn, and
// the client has its answer with the second.) That time begins with the line or
// with the outage, whichever was later, so that in a long outage a queue of
// waiting clients is told at once. A request that was written to a daemon that
// then died is answered with an error and not repeated: it may have been carried
// out, and the client, who knows whether repeating is right, is there to decide.
// With Config.Repeat it is repeated: then each push has an Idempotency-Key, by
// which the daemon knows it again.
package legacy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/lsst-dm/s3daemon/send/client"
)

// Default values of Config, and the port of the protocol.
const (
	DefaultMaxClients = 25
	DefaultPatience   = 5 * time.Second
	DefaultPort       = 15555
)

// Config says what Serve needs to know. The zero value is usable.
type Config struct {
	URL        string        // of the daemon, as client.New wants it; client.DefaultURL where empty
	Token      func() string // for the daemon, see client.New; none where nil
	MaxClients int           // pushes asked of the daemon at once; DefaultMaxClients where 0
	// Patience is how long a client waits for a daemon that takes no pushes;
	// DefaultPatience where 0, not at all where negative.
	Patience time.Duration
	Repeat   bool         // repeat what the daemon did not answer, too
	Logger   *slog.Logger // nothing is logged where nil
}

// The bounds of the package comment.
const (
	maxLineBytes = 64 << 10
	lineTime     = 30 * time.Second
	maxSenders   = 4096
	senderGrace  = time.Second            // before a sender may be dropped for another
	lastLook     = 250 * time.Millisecond // for lines that are already on this host when draining begins
	lastAccept   = 50 * time.Millisecond  // for clients that are connected already when draining begins
	lingerTime   = time.Second            // for the client to take the reply and close
	writeTime    = 5 * time.Second        // for the reply, which fits the socket's buffer anyway
)

// server is one call of Serve.
type server struct {
	log     *slog.Logger
	daemon  *client.Daemon
	forward func(ctx context.Context, file, destination string, ready time.Time) error
	dir     string        // where a relative FILE is
	turns   chan struct{} // one element for each push that is with the daemon
	room    chan struct{} // one element for each open connection
	senders *lobby
}

// Serve answers the clients that connect to the listener until ctx is
// cancelled. Then it drains: it closes the listener, answers the clients whose
// line is complete when their pushes have ended, tells the others that it is
// stopping, and returns nil once the last connection is closed. Draining has
// no time limit, since no waiting client is cut off; a caller in a hurry exits.
//
// Serve closes the listener in every case. Its errors are about the
// configuration or the listener.
func Serve(ctx context.Context, listener net.Listener, cfg Config) error {
	s, err := newServer(cfg)
	if err != nil {
		listener.Close()
		return err
	}
	defer s.daemon.Close()
	return s.serve(ctx, listener)
}

func newServer(cfg Config) (*server, error) {
	if cfg.URL == "" {
		cfg.URL = client.DefaultURL
	}
	if cfg.MaxClients == 0 {
		cfg.MaxClients = DefaultMaxClients
	}
	if cfg.Patience == 0 {
		cfg.Patience = DefaultPatience
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxClients < 0 {
		return nil, fmt.Errorf("%d clients at once is not possible", cfg.MaxClients)
	}
	daemon, err := client.New(cfg.URL, cfg.Token)
	if err != nil {
		return nil, err
	}
	dir, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("find the working directory: %w", err)
	}
	f := &forwarder{push: daemon.PushAs, patience: cfg.Patience, repeat: cfg.Repeat, log: cfg.Logger.With("daemon", daemon.String())}
	room := maxConnections()
	return &server{
		log:     cfg.Logger,
		daemon:  daemon,
		forward: f.forward,
		dir:     dir,
		turns:   make(chan struct{}, cfg.MaxClients),
		room:    make(chan struct{}, room),
		senders: newLobby(min(maxSenders, max(1, room/2))),
	}, nil
}

func (s *server) serve(ctx context.Context, listener net.Listener) error {
	stop := context.AfterFunc(ctx, func() { lastCall(listener) })
	defer stop()
	defer listener.Close()

	crew := newCrew(func(v visitor) {
		defer func() { <-s.room }()
		s.handle(ctx, v)
	})
	err := s.accept(ctx, listener, crew.take)
	listener.Close()
	// Nobody enters the lobby any more, so this reaches everybody in it.
	s.senders.hurry(time.Now().Add(lastLook))
	crew.wait()
	return err
}

// lastCall ends the accepting, but not before those who are connected already
// and wait in the kernel's queue are in: closing the listener would reset them.
func lastCall(listener net.Listener) {
	l, ok := listener.(interface{ SetDeadline(time.Time) error })
	if !ok || l.SetDeadline(time.Now().Add(lastAccept)) != nil {
		listener.Close()
	}
}

// accept hands over each connection, until ctx is cancelled (nil) or the
// listener fails. Each has a place in s.room, which take has to see given back
// when the connection is closed.
func (s *server) accept(ctx context.Context, listener net.Listener, take func(visitor)) error {
	const firstPause, longestPause = 5 * time.Millisecond, time.Second
	pause := firstPause
	for {
		select {
		case s.room <- struct{}{}:
		default:
			select {
			case s.room <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
		}
		conn, err := listener.Accept()
		if err == nil {
			pause = firstPause
			conn.SetReadDeadline(time.Now().Add(lineTime))
			take(visitor{conn, s.senders.enter(ctx, conn)})
			continue
		}
		<-s.room
		switch {
		case ctx.Err() != nil:
			return nil
		case !passing(err):
			return fmt.Errorf("accept clients: %w", err)
		}
		s.log.Warn("cannot accept clients for now", "error", err, "again_in", pause.String())
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		pause = min(2*pause, longestPause)
	}
}

// handle serves one client from its line to its close.
func (s *server) handle(ctx context.Context, v visitor) {
	conn := v.conn
	defer conn.Close()
	line, more, err := readLine(conn, maxLineBytes)
	s.senders.leave(v.place)
	ready := time.Now()
	switch {
	case err == nil:
		// From here on nothing of ours ends the connection before the push has ended.
		err = s.push(context.WithoutCancel(ctx), line, ready)
	case errors.Is(err, io.EOF):
		return // it closed without a word, as port probes do
	case errors.Is(err, errSlow) && ctx.Err() != nil:
		err = errStopping
	}
	if err != nil {
		s.log.Warn("a client is answered with an error", "client", conn.RemoteAddr().String(),
			"seconds", time.Since(ready).Seconds(), "error", client.Explain(err))
	}
	finish(conn, reply(err), more)
}

func (s *server) push(ctx context.Context, line []byte, ready time.Time) error {
	file, destination, err := parseLine(string(line))
	if err != nil {
		return err
	}
	if file != "" && !strings.HasPrefix(file, "/") {
		file = strings.TrimSuffix(s.dir, "/") + "/" + file
	}
	s.turns <- struct{}{}
	defer func() { <-s.turns }()
	return s.forward(ctx, file, destination, ready)
}
