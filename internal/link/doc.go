// Package link makes a long network link on one Linux host: two network
// namespaces, each with a TUN device, and a forwarder between the two that
// delays, limits and drops packets. The kernel's real TCP runs on both sides,
// and processes are started in either. It needs root, and nothing of the
// kernel's traffic control.
//
//	l, err := link.New(link.Shape{RTT: 200 * time.Millisecond, Rate: 1e9, Queue: 100 * time.Millisecond})
//	defer l.Close()
//	err = l.Far.Start(server)  // an exec.Cmd; it listens on l.Far.Addr
//	err = l.Near.Start(client)
//
// What is counted, dropped and timed is always the single packet of at most
// MTU bytes, as on a wire. For the sake of speed the kernel hands over TCP
// segments by the dozen (TSO); such a bundle is taken apart in the accounts:
// each segment takes its own time and its own chance to be dropped, and those
// that are left go on in bundles of at most a few. Nothing is reordered.
//
// The namespaces have no names and are held by this process and those in them
// alone: however they end, nothing is left behind.
package link
