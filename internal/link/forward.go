//go:build linux

package link

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxBundle is how many segments are handed over at once, when the last
	// of them has arrived. Were it many, the rate that TCP measures from few
	// acknowledgements would be wrong.
	maxBundle = 16

	// minSleep bounds how often the forwarder is woken. Packets may be late
	// by it, and are never early.
	minSleep = 50 * time.Microsecond

	// maxReads bounds how long the forwarder reads without looking at what
	// is due.
	maxReads = 8

	// tooLate is how late a packet may arrive and not be counted: what a
	// machine takes that does something else now and then.
	tooLate = 3 * time.Millisecond
)

// Counts are of packets that were sent, as they would be on a wire.
type Counts struct {
	Packets   int64 // all of them
	Overflows int64 // dropped because the queue was full
	Losses    int64 // lost at random
	Late      int64 // arrived milliseconds later than the link's shape says: the machine was busy
}

// A way is what the packets of one direction pass.
type way struct {
	from, to int // TUN devices that do not block
	line     *line
	queue    queue

	packets, overflows, losses, late atomic.Int64
}

// forward carries packets on all ways until stop has been closed on its other
// end. The calling goroutine is locked to its thread. One thread does it all,
// and reads first what its last write has brought about: where the machine is
// idle it is woken but once for each bundle.
func forward(ways []*way, stop int) error {
	restore, err := beExact()
	if err != nil {
		return err
	}
	defer restore()
	start := time.Now()
	buffer := make([]byte, vnetSize+1<<16)
	events := []unix.PollFd{{Fd: int32(stop)}}
	for _, w := range ways {
		events = append(events, unix.PollFd{Fd: int32(w.from), Events: unix.POLLIN})
	}
	for {
		idle, wait := true, time.Duration(-1)
		for _, w := range ways {
			n, err := w.receive(start, buffer)
			if err != nil {
				return err
			}
			m, err := w.deliver(start)
			if err != nil {
				return err
			}
			idle = idle && n == 0 && m == 0
			if p, ok := w.queue.first(); ok && (wait < 0 || p.due < wait) {
				wait = p.due
			}
		}
		if !idle {
			continue
		}
		if err := sleep(events, start, wait); err != nil {
			return err
		}
		if events[0].Revents != 0 {
			return nil
		}
	}
}

// beExact has the calling thread wake when it wanted to and not some 0.05 ms
// later, and come before all others if that is allowed: a real link does not
// wait for a processor. It returns what makes the thread one like others again.
func beExact() (restore func(), err error) {
	const thisThread = 0
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("ask for exact sleep: %w", err)
	}
	prio, err := unix.Getpriority(unix.PRIO_PROCESS, thisThread)
	if err != nil {
		return nil, fmt.Errorf("ask for the priority: %w", err)
	}
	_ = unix.Setpriority(unix.PRIO_PROCESS, thisThread, -20)
	return func() {
		const defaultSlack = 0
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, defaultSlack, 0, 0, 0)
		_ = unix.Setpriority(unix.PRIO_PROCESS, thisThread, 20-prio) // the system call counts from 40 down to 1
	}, nil
}

// sleep waits for an event, or until the time is due unless that is negative.
func sleep(events []unix.PollFd, start time.Time, due time.Duration) error {
	var timeout *unix.Timespec
	if due >= 0 {
		t := unix.NsecToTimespec(int64(max(due-time.Since(start), minSleep)))
		timeout = &t
	}
	if _, err := unix.Ppoll(events, timeout, nil); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for packets: %w", err)
	}
	return nil
}

// receive reads packets and puts those that will arrive into the queue. It
// returns how many there were.
func (w *way) receive(start time.Time, buffer []byte) (int, error) {
	for i := range maxReads {
		n, err := unix.Read(w.from, buffer)
		if errors.Is(err, unix.EAGAIN) {
			return i, nil
		}
		if err != nil {
			return i, fmt.Errorf("read a packet: %w", err)
		}
		b, err := parseBundle(buffer[:n])
		if err != nil {
			return i, err
		}
		w.send(time.Since(start), b)
	}
	return maxReads, nil
}

// send lets each segment of a bundle meet its fate, and has those arrive
// together which arrive one after another.
func (w *way) send(now time.Duration, b bundle) {
	var first int         // of those that go together
	var due time.Duration // of the last of them
	flush := func(end int) {
		if first < end {
			b.write(w.queue.put(due, end-first, b.length(first, end)), first, end)
		}
	}
	for i := range b.segments {
		what, at := w.line.take(now, b.size(i))
		switch what {
		case arrives:
			due = at
			if i+1-first == maxBundle {
				flush(i + 1)
				first = i + 1
			}
			continue
		case overflows:
			w.overflows.Add(1)
		case isLost:
			w.losses.Add(1)
		}
		flush(i)
		first = i + 1
	}
	flush(b.segments)
	w.packets.Add(int64(b.segments))
}

// deliver writes the packets that are due, and returns how many there were.
func (w *way) deliver(start time.Time) (int, error) {
	now := time.Since(start)
	for n := 0; ; n++ {
		p, ok := w.queue.first()
		if !ok || p.due > now {
			return n, nil
		}
		if _, err := unix.Write(w.to, p.data); err != nil {
			return n, fmt.Errorf("write a packet: %w", err)
		}
		if now-p.due > tooLate {
			w.late.Add(int64(p.packets))
		}
		w.queue.drop()
	}
}

func (w *way) counts() Counts {
	return Counts{Packets: w.packets.Load(), Overflows: w.overflows.Load(), Losses: w.losses.Load(), Late: w.late.Load()}
}
