package legacy

import (
	"net"
	"sync"
)

// spareHands is how many goroutines wait for the next client.
const spareHands = 8

// visitor is a client that has just come.
type visitor struct {
	conn  net.Conn
	place *place
}

// crew serves visitors, each in a goroutine. A few goroutines go on to the
// next visitor: the stack of a new one has to grow first, which is a tenth of
// what a push costs.
type crew struct {
	serve func(visitor)
	next  chan visitor
	spare chan struct{} // one element for each goroutine that waits for next
	hands sync.WaitGroup
}

func newCrew(serve func(visitor)) *crew {
	return &crew{serve: serve, next: make(chan visitor), spare: make(chan struct{}, spareHands)}
}

// take has the visitor served, at once and whatever the others do.
func (c *crew) take(v visitor) {
	select {
	case c.next <- v:
	default:
		c.hands.Go(func() { c.work(v) })
	}
}

func (c *crew) work(v visitor) {
	for open := true; open; {
		c.serve(v)
		select {
		case c.spare <- struct{}{}:
		default:
			return
		}
		v, open = <-c.next
		<-c.spare
	}
}

// wait returns when all visitors have been served. None may be taken any more.
func (c *crew) wait() {
	close(c.next)
	c.hands.Wait()
}
