package e2e

import (
	"fmt"
	"net/http"
	"os"
	"testing"

	"github.com/chromedp/chromedp"
)

// Whoever looks sees at once what failed lately, why, and what to do, once for each
// cause; and is led from there to the pushes.
func TestPageTellsWhyPushesFailed(t *testing.T) {
	sideBySide(t)
	p := newFaultProxy(t)
	g := newGate()
	p.follow(only("PutObject", once(fault{before: g.wait})))
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_MAX_CONNECTIONS=1")
	bucket, missing, file := newBucket(t), "there-is-no-such-bucket", makeFile(t, "file", 1000)
	b := openPage(t, d, "")
	if eval[bool](b, "document.querySelector('#failures').checkVisibility()") {
		t.Error("something is said of failures where there are none")
	}

	d.pushAsync(t, file, "s3://"+bucket+"/first")
	waitFor(t, "it to be under way", func() bool { return p.nowHeld() == 1 })
	gone := makeFile(t, "gone.fits", 1000)
	d.pushAsync(t, gone, "s3://"+bucket+"/gone.fits")
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	g.open()
	fail := func(key string) {
		t.Helper()
		d.push(t, file, "s3://"+missing+"/"+key).refused(t, http.StatusBadGateway, "store_refused")
	}
	fail("a")
	fail("b")
	const cause = "(document.querySelectorAll('#causes li')[%d]?.innerText ?? '')"
	first, second := fmt.Sprintf(cause, 0), fmt.Sprintf(cause, 1)
	b.wait("both causes, the commoner first", first+".startsWith('2 × the store refused store_refused') && "+second+".startsWith('1 × the file is gone file_not_found')")
	b.wait("why, and what to do", first+".includes('NoSuchBucket') && "+first+".includes('then retry.') && "+second+".includes('gone.fits') && "+second+".includes('Put the file back')")
	b.shot("why-failed")
	for _, tc := range []struct {
		name string
		size func()
	}{{"why-failed-phone", b.phone}, {"why-failed-narrow", b.narrow}} {
		tc.size()
		b.fits("what failed")
		b.shot(tc.name)
	}
	b.desktop()
	tree := b.accessible()
	tree.named(t, "what failed")

	// A number that changes takes the focus from nobody.
	b.tabTo("#causes li:first-child a")
	fail("c")
	b.wait("another one", first+".startsWith('3 ×')")
	if !eval[bool](b, "document.activeElement.matches('#causes li:first-child a')") {
		t.Errorf("the focus went to %s", eval[string](b, "document.activeElement.outerHTML"))
	}

	b.click("#causes li:first-child a:last-child")
	b.wait("all that failed to the bucket", "document.querySelectorAll('#rows tr').length === 3 && location.hash.startsWith('#/?state=failed') && document.querySelector('#byText').value === 's3://"+missing+"/'")
	b.click("#causes li:nth-child(2) a")
	b.wait("the push itself", "location.hash.startsWith('#/pushes/') && text('#oneTitle') === 'gone.fits' && text('#oneWhy').includes('file_not_found')")
	b.do(chromedp.NavigateBack())
	b.wait("the list", "document.querySelector('#failures').checkVisibility()")
}
