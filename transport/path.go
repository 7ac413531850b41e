package transport

import "time"

// Path is what the pool knows of the way to a host. It is a value, and of the
// moment at which it was asked for.
type Path struct {
	// RTT is the least round trip of any connection; 0 where none is known.
	RTT time.Duration
	// Rates has what each idle connection would begin to send at, in bytes a
	// second, the highest first: what it remembers of having sent, or where it has
	// been idle for so long that its window was forgotten, what it begins with.
	Rates []float64
	// Window is how many bytes of payload one connection may have under way, by the
	// room that its send buffer has; 0 where that is not known.
	Window int64
	// Rate is the most, in bytes a second, that all connections together were seen to
	// deliver lately; 0 where nothing is known.
	Rate float64
}
