// Package e2e tests s3daemon from outside: the built binaries run as processes
// of their own, files are real, and the store is a versitygw with real
// signatures, real multipart uploads and a file system below it. It has
// tests, and in versitygw/ the store of the benchmark of long links. It is a
// module of its own so that what they need (a whole S3 server among it) never
// reaches the daemon's own list of dependencies.
//
// What a test has to work with, each in the file of that name:
//
//	d := startDaemon(t, "S3DAEMON_ATTEMPTS=2")   // daemon_test.go: a daemon, stopped and checked at the test's end
//	d.kill(); d = d.restart(t)                   // and another on the same journal
//	p := storeProxy(t)                           // proxy_test.go: counts, holds up and slows down the bytes that go to the store
//	p := newFaultProxy(t)                        // fault_test.go: does to each request what a plan decides, and records all
//	p := newFaultProxyTo(t, dial)                //   the same before another store
//	p.follow(everyNth(4, slowDown.instead()))    // faultplan_test.go: the plans and the faults
//	p.follow(unaware(byKey(plans)))              //   and combinations: here a store that knows no checksums, a plan for each key
//	l := newLink(t)                              // netns_test.go: two network namespaces and a cable; l.down(t), l.up(t)
//	p.cutOff(cutClosed); p.restore(t)            // cutoff_test.go: no store at all, and back
//	bucket := newBucket(t)                       // store_test.go: a bucket, looked through and removed at the end
//	file := makeFile(t, "a.fits", 5<<20)         // files_test.go: a file whose bytes its name and size decide
//	a := d.push(t, file, "s3://"+bucket+"/key")  // api_test.go: any answer is checked against openapi.yaml
//	r := d.pushAsync(t, file, "s3://...")        // queue_test.go: nobody waits; d.endOf, d.listOf, d.barrier, d.cancel, d.retry
//	s := fakeStore(t)                            // stores_test.go: another store; s.env(s.url, "md5") for a daemon on it
//	p := startProber(t, process, targets); p.inTime()       // prober_test.go: /healthz every 50 ms, beside a bare server's
//	theLeaks.learn("what it is", secret)         // leaks_test.go: looked for in all that the suite's processes say; those in variables are anyway
//	b := openPage(t, d, "#/?state=failed")       // page_test.go: the status page in a browser; b.wait, b.click, b.press, b.shot (browser_test.go)
//	checkObject(t, bucket, "key", file)          // store_test.go: read back past the daemon, byte for byte
//
// Nothing here sleeps in the hope that something has happened by then: where a
// test needs an upload to be under way, a proxy holds it there until it is let
// go. Time passes only where it is the matter itself: outages, and the random
// moments at which daemons are killed.
package e2e
