// Package client asks a running s3daemon over HTTP:
//
//	d, err := client.New("http://127.0.0.1:15556", nil) // or unix:/run/s3daemon.sock
//	err = d.Push(ctx, "/data/a.fits", "s3://raw/a.fits")
//
// Push returns nil only when the daemon has answered with the receipt of a
// push that is done. It never waits for less than that, and never longer for
// connecting than ConnectTimeout. Submit asks for a push with all that can be
// wished of one, Get and List tell what became of pushes. What went wrong is
// told apart so:
//
//	errors.Is(err, client.ErrNotTaken)  the daemon did not do what it was
//	                                    asked for: ask again freely
//	errors.As(err, **push.Error)        the daemon's own answer
//	errors.As(err, **client.LostError)  the daemon went away, and what it did
//	                                    is not known: ask again where
//	                                    repeating is harmless
//	anything else                       what is there does not speak the
//	                                    daemon's contract, or ctx ended
//
// A request is sent once. It is written by the caller's own goroutine, which
// also reads the answer, and not by net/http's client: that one starts three
// more for each connection, which cost more than all the rest of a small push,
// and keeps idle connections for so long that a request can be written into
// one that a stopping daemon is just closing. Here a connection is used again
// only within a second, and only when it is seen to be open.
package client

import (
	"context"
	"errors"
	"fmt"
	"net/url"
)

// ErrNotTaken is the kind of the failures after which asking again is right:
// there was no daemon to connect to, it is shutting down, or it has no room
// for another push. Nothing new is under way then. A push that the daemon had
// accepted before and keeps for its next start (the answer has its id) is
// delivered whether or not it is asked for again, and two pushes of one file
// to one object are made in turn.
var ErrNotTaken = errors.New("the daemon did not take the push")

// Push asks the daemon to push the file, an absolute path on the daemon's
// host, to the destination, and waits until that has ended. Cancelling ctx
// ends the waiting, not the push.
func (d *Daemon) Push(ctx context.Context, file, destination string) error {
	return d.PushAs(ctx, "", file, destination)
}

// PushAs is Push with an Idempotency-Key: asking again with the same one is asking
// for the same push.
func (d *Daemon) PushAs(ctx context.Context, key, file, destination string) error {
	r, err := d.ask(ctx, d.request(key, file, destination), maxAnswerBytes)
	if err != nil {
		return err
	}
	return d.judge(r)
}

// request returns the whole request. Its body is a form, since JSON cannot
// carry a path that is not UTF-8.
func (d *Daemon) request(key, file, destination string) []byte {
	return d.post(keyLine(key), url.Values{"file": {file}, "destination": {destination}})
}

// keyLine returns the header line with the key, if there is one.
func keyLine(key string) string {
	if key == "" {
		return ""
	}
	return fmt.Sprintf("Idempotency-Key: %q\r\n", key)
}

// post returns a request for a push, with more header lines, each with its
// end.
func (d *Daemon) post(header string, values url.Values) []byte {
	form := values.Encode()
	return fmt.Appendf(nil, "POST %s/push HTTP/1.1\r\n"+
		"Host: %s\r\n"+
		"User-Agent: s3daemon-send\r\n"+
		"Accept: application/json, application/problem+json\r\n"+
		"Content-Type: application/x-www-form-urlencoded\r\n"+
		"%s%sContent-Length: %d\r\n\r\n%s", d.path, d.host, d.authorization(), header, len(form), form)
}

// get returns a request that changes nothing.
func (d *Daemon) get(route string) []byte {
	return fmt.Appendf(nil, "GET %s%s HTTP/1.1\r\n"+
		"Host: %s\r\n"+
		"User-Agent: s3daemon-send\r\n"+
		"Accept: application/json, application/problem+json\r\n%s\r\n", d.path, route, d.host, d.authorization())
}

// authorization returns the header line with the token, if there is one.
func (d *Daemon) authorization() string {
	if d.token == nil {
		return ""
	}
	return "Authorization: Bearer " + d.token() + "\r\n"
}
