package e2e

import (
	"testing"
	"time"
)

// faultsOf are the faults that may befall an operation, by what they are
// called. Each ends by itself.
func faultsOf(op string) map[string]fault {
	early := internalError.instead()
	early.early = true
	faults := map[string]fault{
		"reset":                {what: resetFirst},
		"cut in place of it":   {what: cutAfter},
		"cut in it":            {what: cutAnswer},
		"cut in its head":      {what: cutAnswer, at: offset(20)},
		"500 instead":          internalError.instead(),
		"500 early":            early,
		"500 after":            internalError.afterStoring(),
		"503 after":            slowDown.afterStoring(),
		"400 RequestTimeout":   requestTimeout.instead(),
		"an error in 200":      errorIn200.instead(),
		"an error in 200 late": errorIn200.afterStoring(),
		"trickles":             {what: trickles, pace: time.Millisecond},
		"ends the connection":  {what: closes},
		"reset when idle":      {what: resetsIdle},
	}
	if op == "PutObject" || op == "UploadPart" {
		faults["broken off"] = fault{what: resetMidway}
		faults["broken off soon"] = fault{what: resetMidway, at: offset(100)}
		faults["flipped"] = fault{what: flips, at: anywhere}
		faults["stops reading"] = fault{what: stopsReading, at: offset(100)}
	} else {
		faults["truncated"] = fault{what: truncatesXML}
		faults["empty"] = fault{what: truncatesXML, at: offset(0)}
		faults["trickles in the body"] = fault{what: tricklesBody, pace: time.Millisecond}
	}
	if op == "CreateMultipartUpload" && full() { // longer than it may take: half a minute
		faults["trickles on and on"] = fault{what: tricklesBody, pace: time.Second}
	}
	if op != "CreateMultipartUpload" {
		faults["wrong ETag"] = fault{what: wrongETag}
		faults["wrong checksum"] = fault{what: wrongChecksum}
	}
	return faults
}

// Whatever befalls one request, once: in the end the store has the object, and
// the push is done. The object was made once, unless the store's answer was that
// it has other bytes. Nothing is deleted but by giving up an upload.
func TestEachFault(t *testing.T) {
	sideBySide(t)
	p := newFaultProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_STALL_TIMEOUT=3s")
	bucket := newBucket(t)
	// More than connections hold by themselves, so that one can stand still.
	small, large := newRandomFile(t, "small", 8<<20), newRandomFile(t, "large", oneRequest+1)
	type push struct {
		fault fault
		op    string
		file  *randomFile
		id    string
	}
	pushes, plans := map[string]*push{}, map[string]plan{}
	for op, file := range map[string]*randomFile{
		"PutObject": small, "CreateMultipartUpload": large, "UploadPart": large, "CompleteMultipartUpload": large,
	} {
		for name, f := range faultsOf(op) {
			key := op + "/" + name
			pushes[key] = &push{fault: f, op: op, file: file}
			plans[key] = only(op, once(f))
			if op == "UploadPart" { // not the part of one byte
				plans[key] = only(op, atLeast(partSize, once(f)))
			}
		}
	}
	p.follow(byKey(plans))
	for key, push := range pushes {
		push.id = d.pushAsync(t, push.file.path, "s3://"+bucket+"/"+key).ID
	}
	for key, push := range pushes {
		t.Run(key, func(t *testing.T) {
			r := d.doneOf(t, push.id)
			sums := push.file.sums
			// Where a checksum shows the bytes, the ETag is what the store says.
			said := r.ETag == sums.etag || push.fault.what == wrongETag && push.op == "PutObject"
			if !said || r.Size != sums.size || r.Checksum == nil || r.Checksum.Value != sums.crc64nvme {
				t.Errorf("the receipt is %+v, the file has %+v", r, sums)
			}
			if got, err := digestObject(bucket, key); err != nil || got != push.file.digest {
				t.Errorf("the store has %d bytes of %d, or others: %v", got.size, sums.size, err)
			}
			disagrees := push.fault.what == wrongETag || push.fault.what == wrongChecksum
			if made := p.objectsMade(bucket, key); len(made) != 1 && !disagrees {
				t.Errorf("the object was made %d times, want once: %s", len(made), p.summary())
			}
			met := false
			for _, x := range p.requests(push.op) {
				// Or the daemon had left that connection just then, for another push's sake.
				met = met || x.key == key && x.what == push.fault.what && (x.outcome == "" || x.outcome == "gone")
			}
			if !met {
				t.Errorf("the fault was not met: %s", p.summary())
			}
		})
	}
	checkNothingDeleted(t, p)
	untilNoUploads(t, bucket)
}

// checkNothingDeleted fails the test where a daemon asked for something to be
// deleted that was not an upload of its own.
func checkNothingDeleted(t testing.TB, p *faultProxy) {
	t.Helper()
	for _, x := range p.requests("") {
		if x.method == "DELETE" && x.op != "AbortMultipartUpload" {
			t.Errorf("the daemon asked for %s %s", x.method, x.path)
		}
	}
}
