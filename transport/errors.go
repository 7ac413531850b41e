package transport

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"syscall"
	"time"
)

// ErrNotRead marks a success that was said before the request had been sent.
var ErrNotRead = errors.New("the store answered before it had read the whole request")

// ErrNotTried is what an error of Config.Dial is, by errors.Is, where no connection was
// tried: it says nothing of what the host would have done.
var ErrNotTried = errors.New("no connection was tried")

// errTooLong ends an answer that nobody could want.
var errTooLong = fmt.Errorf("the store's answer has more than %d MiB", mostAnswer>>20)

// StallError ends a request that stood still.
type StallError struct {
	At    Phase         // Sending too where an answer is awaited and some bytes have not been acknowledged
	What  string        // did not happen
	Limit time.Duration // within which it should have
	Err   error         // what the kernel said, if it was quicker
}

// Error says what did not happen, and for how long.
func (e *StallError) Error() string {
	text := fmt.Sprintf("%s within %v", e.What, e.Limit)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns what the kernel said, if anything.
func (e *StallError) Unwrap() error { return e.Err }

// BrokenError is the failure of a connection that broke in the midst of a
// request.
type BrokenError struct {
	Reused  bool // it had carried another request before, or been idle for a while, and brought nothing of an answer to this one
	Idle    bool // and had been idle for a while: the store may have given it up, which says nothing of the store
	Untaken bool // and was gone before the request came to it: the store cannot have acted on that
	Vouched bool // it was new, and others to the host are sound: that it broke says nothing of the store
	Err     error
}

// Error is the text of the failure itself.
func (e *BrokenError) Error() string { return e.Err.Error() }

// Unwrap returns the failure itself.
func (e *BrokenError) Unwrap() error { return e.Err }

// broke reports whether a connection ended in the midst of the request. net/http
// closes one whose other end has: then the sending may be what fails.
func broke(err error) bool {
	return anyOf(err, io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed)
}

// notConnected is the failure of what could not be had.
func notConnected(limit time.Duration) *StallError {
	return &StallError{At: Connecting, What: noConnection, Limit: limit}
}

const noConnection = "no connection could be had"

// silent reports whether the kernel ended a connection because nothing came
// back on it. The network may have told it why.
func silent(err error) bool {
	return anyOf(err, syscall.ETIMEDOUT, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN)
}

// refused reports whether the other end ended a connection, or would not have it.
func refused(err error) bool { return broke(err) || errors.Is(err, syscall.ECONNREFUSED) }

// timedOut reports whether a connection could not be had because nothing came back.
func timedOut(err error) bool {
	late, ok := errors.AsType[net.Error](err)
	_, stalled := errors.AsType[*StallError](err)
	return stalled || ok && late.Timeout() || silent(err)
}

func anyOf(err error, these ...error) bool {
	return slices.ContainsFunc(these, func(e error) bool { return errors.Is(err, e) })
}

// dialError marks what Config.Dial failed with: it says nothing of a connection,
// whatever it is made of.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// reached reports whether the host was, by the failure to make a connection: it broke
// in the handshake of TLS.
func reached(err error) bool { return broke(err) && !dialled(err) }

func dialled(err error) bool {
	_, ok := errors.AsType[*dialError](err)
	return ok
}
