package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/heapprofiler"
	"github.com/chromedp/cdproto/memory"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// failedRequest is what a browser says of its own accord where an answer is no 200.
const failedRequest = "Failed to load resource"

// openPage opens the status page of a daemon, and waits until it shows how that is.
func openPage(t testing.TB, d *daemon, fragment string) *tab {
	t.Helper()
	b := openTab(t, d.url, "/"+fragment)
	b.wait("the daemon's state", "text('#summary').includes('well') || text('#advice')")
	return b
}

// Whoever looks sees an upload come, move and end, without doing anything.
func TestPageRunningUpload(t *testing.T) {
	sideBySide(t)
	p := storeProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	bucket, file := newBucket(t), makeFile(t, "moving.fits", 30_000_000)
	b := openPage(t, d, "")
	b.wait("an empty list to say how to begin", "text('#none').includes('curl -d file=/PATH')")
	b.wait("no fault to be found with a daemon that does nothing", "text('#level') === 'WORKING' && document.title.startsWith('Working: All is well')")
	b.shot("empty")

	p.limit(1_000_000)
	if a := d.pushAs(t, async.labelled("night12"), file, "s3://"+bucket+"/moving.fits"); a.status != http.StatusAccepted {
		t.Fatalf("%d: %s", a.status, a.body)
	}
	b.wait("the upload to be shown", "row('moving.fits').includes('Running') && row('moving.fits').includes('night12')")
	b.wait("what of it has arrived", "document.querySelector('#rows progress')?.value > 0")
	before := eval[float64](b, "document.querySelector('#rows progress').value")
	b.wait("it to move", fmt.Sprintf("document.querySelector('#rows progress').value > %f", before))
	b.wait("its words", `/[\d.]+ MB of 30.0 MB \(\d+ %\)/.test(row('moving.fits'))`)
	b.shot("running")
	p.limit(0)
	b.wait("it to be done", "row('moving.fits').includes('Done') && row('moving.fits').includes('30.0 MB')")
	b.wait("the figures to have it", "text('#done') === '1' && text('#doneBytes') === '30.0 MB'")
	b.wait("its time", "text('#timesWords').startsWith('0 of 1 late (over 7 s')")
	b.wait("its bytes in the plot", "text('#throughputWords').startsWith('Peak ')")
	if eval[bool](b, "Boolean(document.querySelector('#rows progress')?.checkVisibility())") {
		t.Error("what is done still has a bar")
	}
	checkObject(t, bucket, "moving.fits", file)
	b.prefers("prefers-color-scheme", "dark")
	b.shot("done-dark")
}

// A failure says why in its row. Retry asks first, and then works, by keys alone.
func TestPageFailureAndRetry(t *testing.T) {
	sideBySide(t)
	d := startDaemon(t)
	bucket := "made-later-" + strings.TrimPrefix(newBucket(t), "testpagefailureandretry-")
	file := makeFile(t, "lost.fits", 1000)
	d.push(t, file, "s3://"+bucket+"/lost.fits").refused(t, http.StatusBadGateway, "store_refused")
	b := openPage(t, d, "")
	b.wait("the reason in the row", "row('lost.fits').includes('Failed') && row('lost.fits').includes('NoSuchBucket') && row('lost.fits').includes('store_refused')")
	b.wait("the verdict", "text('#level') === 'ATTENTION' && text('#summary').includes('failed') && text('#advice').includes('etry')")
	b.wait("the reason at the top, too", "text('#failures').includes('1 × the store refused') && text('#failures').includes('lost.fits') && text('#failures').includes('NoSuchBucket')")
	b.wait("the figures", "text('#failed') === '1' && document.querySelector('#failedLink').checkVisibility()")
	b.shot("failure")
	b.phone()
	b.fits("a failure on a phone")
	b.fullShot("failure-phone")
	b.desktop()

	// Whoever has second thoughts changes nothing.
	b.tabTo("#rows button")
	b.press(kb.Enter)
	b.wait("the question", "document.querySelector('#confirm').open && text('#confirm').includes('Retry this push?')")
	if words := b.text("#confirm"); !strings.Contains(words, file) || !strings.Contains(words, "s3://"+bucket+"/lost.fits") || !strings.Contains(words, "goes back into the queue") {
		t.Errorf("the question is:\n%s", words)
	}
	if on := eval[string](b, "document.activeElement.id"); on != "no" {
		t.Errorf("the focus is on %q, want that which changes nothing", on)
	}
	b.shot("question")
	b.press(kb.Escape)
	b.wait("the question to be gone, and the focus back", "!document.querySelector('#confirm').open && document.activeElement.matches('#rows button')")
	if n := b.requests("/pushes/"); n != 0 {
		t.Errorf("%d requests about a push were made before anything was confirmed", n)
	}

	// Where the daemon refuses, that is said in the question itself.
	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	b.expect(failedRequest)
	b.press(kb.Enter)
	b.tabTo("#yes")
	b.press(kb.Enter)
	b.wait("the refusal", "document.querySelector('#confirm').open && text('#confirmWrong') !== ''")
	b.shot("question-refused")
	if err := os.Rename(file+".away", file); err != nil {
		t.Fatal(err)
	}

	if _, err := theStore.client.CreateBucket(context.Background(), &s3.CreateBucketInput{Bucket: &bucket}); err != nil {
		t.Fatal(err)
	}
	b.press(kb.Enter)
	b.wait("it to be done after all", "row('lost.fits').includes('Done') && !document.querySelector('#confirm').open")
	b.wait("screen readers to be told", "document.querySelector('#outcome').textContent.startsWith('lost.fits: ')")
	b.wait("the focus to be where it was, though there is no button any more", "document.activeElement.matches('#rows a')")
	checkObject(t, bucket, "lost.fits", file)
}

// What waits, and what runs, can be cancelled.
func TestPageCancel(t *testing.T) {
	sideBySide(t)
	p := newFaultProxy(t)
	g := newGate()
	p.follow(always(fault{before: g.wait}))
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_MAX_CONNECTIONS=1")
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	d.pushAsync(t, file, "s3://"+bucket+"/first")
	waitFor(t, "it to be under way", func() bool { return p.nowHeld() == 1 })
	id := d.pushAsync(t, file, "s3://"+bucket+"/second").ID
	b := openPage(t, d, "")
	b.wait("both", "row('/first').includes('Running') && row('/second').includes('Queued')")
	b.wait("the queue", "text('#queued') === '1' && text('#running') === '1' && text('#queuedOldest').startsWith('oldest ')")
	b.clickIn("/second")
	b.wait("the question", "text('#confirm').includes('Cancel this push?') && text('#confirm').includes('not delivered')")
	b.click("#yes")
	b.wait("it to be cancelled", "row('/second').includes('Cancelled') && row('/first').includes('Running')")
	b.wait("that it can be put back", "row('/second').includes('Retry')")
	b.wait("the focus on its row", "document.activeElement.matches('#rows tr:first-child *')")
	if r := d.endOf(t, id); r.State != "cancelled" {
		t.Errorf("it is %s", r.State)
	}
	b.open("/#/pushes/" + id)
	b.tabTo("#oneRetry")
	b.press(kb.Enter)
	b.tabTo("#yes")
	b.press(kb.Enter)
	b.wait("it to be put back, and the focus to stay on its page", "text('#oneState').startsWith('Queued') && document.activeElement.id === 'oneTitle'")
	b.open("/")
	b.wait("the list", "row('/first').includes('Running') && row('/second').includes('Queued')")

	// A question that has nothing left to ask says so.
	b.clickIn("/first")
	b.wait("the question", "text('#confirm').includes('Cancel this push?')")
	g.open()
	b.wait("that it is too late", "text('#confirmWrong') === 'It is done by now: there is nothing to cancel.' && document.querySelector('#yes').disabled && document.activeElement.id === 'no'")
	b.press(kb.Enter)
	b.wait("both to be done", "row('/first').includes('Done') && row('/second').includes('Done') && !document.querySelector('#confirm').open")
	b.wait("the focus on its row", "document.activeElement.matches('#rows tr:last-child a')")
}

// The list shows what is asked for, also after it was left and when it changes; the
// filter stands in the address.
func TestPageFilters(t *testing.T) {
	sideBySide(t)
	d := startDaemon(t)
	bucket, file := newBucket(t), makeFile(t, "file", 100)
	push := func(key, label string) {
		t.Helper()
		if a := d.pushAs(t, wish{label: label}, file, "s3://"+bucket+"/"+key); a.status != http.StatusOK {
			t.Fatalf("%d: %s", a.status, a.body)
		}
	}
	for i := range 60 {
		push(fmt.Sprintf("many-%02d", i), "day")
	}
	push("Special", "night")
	missing := "missing-" + bucket
	d.push(t, file, "s3://"+missing+"/none").refused(t, http.StatusBadGateway, "store_refused")
	rows := func(n int) string { return fmt.Sprintf("document.querySelectorAll('#rows tr').length === %d", n) }

	b := openPage(t, d, "")
	b.wait("a page of them", rows(50))
	b.click("#older")
	b.wait("the others, the oldest last", rows(12)+" && row('many-00').includes('Done') && !document.querySelector('#older').checkVisibility()")
	b.do(chromedp.NavigateBack())
	b.wait("the way back", rows(50)+" && row('Special').includes('night')")

	b.do(chromedp.SendKeys(chromedp.CSS("#byLabel"), "night"))
	b.wait("those of a label", rows(1)+" && row('Special').includes('Done')")
	push("late", "night")
	push("other", "day")
	b.wait("another one to come by itself", rows(2)+" && row('/late').includes('Done')")
	b.wait("the filter in the address", "location.hash === '#/?label=night'")
	b.click("#clear")
	b.wait("all again", rows(50)+" && location.hash === '#/'")

	b.do(chromedp.SendKeys(chromedp.CSS("#byText"), "SPECIAL"))
	b.wait("those with a text", rows(1)+" && row('Special').includes('Done')")
	b.do(chromedp.Reload())
	b.wait("the same after a reload", rows(1)+" && document.querySelector('#byText').value === 'SPECIAL'")
	push("ordinary", "day")
	push("special-too", "day")
	b.wait("that alone to come that has the text", rows(2)+" && row('special-too').includes('Done')")
	b.click("#clear")
	b.click("#failedLink")
	b.wait("those that failed", rows(1)+" && row('none').includes('Failed') && document.querySelector('#byState').value === 'failed'")
	failed := d.listOf(t, "state=failed")[0].ID
	if _, err := theStore.client.CreateBucket(context.Background(), &s3.CreateBucketInput{Bucket: &missing}); err != nil {
		t.Fatal(err)
	}
	if a := d.retry(t, failed); a.status != http.StatusOK && a.status != http.StatusAccepted {
		t.Fatalf("%d: %s", a.status, a.body)
	}
	b.wait("it to leave once it is done", rows(0))
	b.open("/#/?state=running")
	b.wait("that there is none", rows(0)+" && text('#none') === 'No push is like that.'")
	b.shot("none")
	b.expect(failedRequest)
	b.open("/#/?state=nonsense")
	b.wait("a wrong filter to be told", "text('#listWrong').includes('is none')")
	b.open("/#/")
	b.wait("all", rows(50))
	b.click("#byText")
	eval[chromedp.Void](b, "location.hash = '#/?text=special'")
	b.wait("the field to say what the address does, also where the focus is in it", rows(2)+" && document.querySelector('#byText').value === 'special'")
	eval[chromedp.Void](b, "location.hash = '#/?state=nonsense'")
	b.wait("nothing of what was asked for before", rows(0)+" && text('#listWrong').includes('is none') && !document.querySelector('#none').checkVisibility()")

	// Held, nothing moves; then all is there.
	b.open("/#/?label=night")
	b.wait("both of the label", rows(2))
	b.click("#hold")
	push("meanwhile", "night")
	b.wait("that there is more", rows(2)+" && text('#count').includes('newer')")
	b.click("#hold")
	b.wait("it", rows(3))
}

// A push has a page of its own, with all that is known of it.
func TestPageOfOnePush(t *testing.T) {
	sideBySide(t)
	p := newFaultProxy(t)
	p.follow(only("PutObject", once(fault{status: http.StatusServiceUnavailable, code: "SlowDown"}.instead())))
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	bucket, file := newBucket(t), makeFile(t, "one.fits", 1_000_000)
	r := d.doneOf(t, d.pushAs(t, async.labelled("night12"), file, "s3://"+bucket+"/one.fits").accepted(t).ID)
	b := openPage(t, d, "#/?label=night12")
	b.wait("the list", "row('one.fits').includes('Done')")
	b.click("#rows a")
	b.wait("the push", "location.hash === '#/pushes/"+r.ID+"' && text('#oneTitle') === 'one.fits' && text('#oneState').startsWith('Done 1.00 MB in ')")
	if on := eval[string](b, "document.activeElement.id"); on != "oneTitle" {
		t.Errorf("the focus is on %q, want the title of what is new", on)
	}
	facts := b.text("#facts")
	for _, fact := range []string{file, r.Destination, "night12", "1.00 MB (1,000,000 bytes)", "Attempts\n2", "one request", "compared by the", r.Checksum.Value, r.ETag} {
		if !strings.Contains(facts, fact) {
			t.Errorf("%q is not among the facts:\n%s", fact, facts)
		}
	}
	b.wait("the attempt that failed", "text('#attemptRows').includes('PutObject') && text('#attemptRows').includes('SlowDown')")
	if parts := eval[int](b, "document.querySelectorAll('#timing rect').length"); parts < 2 {
		t.Errorf("the bar has %d parts, of which one is the wait for another attempt", parts)
	}
	if words := b.text("#timingRows"); !strings.Contains(words, "Queued") || !strings.Contains(words, " s") {
		t.Errorf("the timing is %q", words)
	}
	b.fullShot("one")
	b.phone()
	b.fits("a push on a phone")
	b.prefers("prefers-color-scheme", "dark")
	b.fullShot("one-phone-dark")
	b.desktop()
	b.click("#copy")
	b.wait("the id to be copied, or selected", "text('#copied') === 'Copied.' || getSelection().toString() === text('#oneId')")
	b.click("#back")
	b.wait("the list as it was", "location.hash === '#/?label=night12' && row('one.fits').includes('Done')")

	b.expect(failedRequest)
	b.open("/#/pushes/01a2099f-a374-7d75-988c-bfa863fc1e8f")
	b.wait("that there is no such push", "text('#oneWrong').includes('o push')")
}

// Without its token a daemon shows nothing; a wrong one is told; the right one is kept
// for as long as the tab.
func TestPageToken(t *testing.T) {
	sideBySide(t)
	path := filepath.Join(t.TempDir(), "token")
	writeToken(t, path, oneToken)
	d := startDaemon(t, "S3DAEMON_TOKEN_FILE="+path)
	b := openTab(t, d.url, "/")
	b.expect(failedRequest)
	asks := "document.querySelector('#ask').checkVisibility() && document.activeElement.id === 'token' && !document.querySelector('#overview').checkVisibility()"
	b.wait("it to ask", asks)
	b.shot("token")
	b.press(otherToken, kb.Enter)
	b.wait("that it is wrong", asks+" && text('#askwrong').includes('none of this daemon')")
	b.press(oneToken, kb.Enter)
	b.wait("the state", "text('#summary').startsWith('All is well') && text('#none').startsWith('Nothing') && document.title.startsWith('Working')")
	if on := eval[string](b, "document.activeElement.id"); on != "main" {
		t.Errorf("the focus is on %q, want what has come", on)
	}
	b.do(chromedp.Reload())
	b.wait("the state again", "text('#summary').startsWith('All is well')")
	if words := eval[string](b, "location.href + document.cookie + Object.keys(localStorage)"); strings.Contains(words, oneToken) {
		t.Errorf("the token is in %q", words)
	}
	other := openTab(t, d.url, "/")
	other.expect(failedRequest)
	other.wait("another one to be asked", asks)

	// One that counts no more is asked for again, by itself.
	writeToken(t, path, otherToken)
	b.wait("it to ask again, and to say nothing else", asks+" && text('#askwrong').includes('counts no longer') && document.title.startsWith('Token wanted') && text('#about') + text('#since') === ''")
	b.press(otherToken, kb.Enter)
	b.wait("the state with the new one", "text('#summary').startsWith('All is well')")
}

// A store that is away is trouble, in all that tells it: words, icon, title, the tab's
// icon. When it is back all is well again, by itself.
func TestPageStoreAway(t *testing.T) {
	sideBySide(t)
	p := newFaultProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	bucket, file := newBucket(t), makeFile(t, "waits.fits", 18_000_000)
	b := openPage(t, d, "")
	b.wait("all to be well", "text('#level') === 'WORKING'")
	wellIcon := eval[string](b, "document.querySelector('#icon').href")
	p.cutOff(cutClosed)
	for i := range 8 {
		d.pushAs(t, async.labelled("night12"), file, fmt.Sprintf("s3://%s/waits-%d.fits", bucket, i))
	}
	b.wait("the trouble", "text('#level') === 'TROUBLE' && text('#summary').startsWith('The store cannot be reached') && text('#advice').includes('Nothing is lost')")
	if title := eval[string](b, "document.title"); !strings.HasPrefix(title, "Trouble: The store cannot be reached") {
		t.Errorf("the title is %q", title)
	}
	if eval[string](b, "document.querySelector('#icon').href") == wellIcon {
		t.Error("the tab's icon is that of a daemon that is well")
	}
	if sign := eval[string](b, "document.querySelector('#sign').getAttribute('href')"); sign != "#i-trouble" {
		t.Errorf("the sign is %q", sign)
	}
	b.wait("why they wait", "row('waits-7').includes('Waiting: ') && row('waits-7').includes('cannot be reached')")
	b.shot("trouble")
	b.prefers("prefers-color-scheme", "dark")
	b.shot("trouble-dark")
	b.phone()
	b.shot("trouble-phone-dark")
	b.narrow()
	b.fits("trouble in a window of 320 pixels")
	b.desktop()
	p.restore(t)
	b.wait("all to be done", "text('#done') === '8' && text('#queued') === '0' && !text('#summary').includes('reached')")
	if eval[string](b, "document.querySelector('#sign').getAttribute('href')") == "#i-trouble" {
		t.Error("the sign is still that of trouble")
	}
}

// A daemon that is gone is told as that, and never as well; when there is one again, it
// is shown as it is then.
func TestPageReconnects(t *testing.T) {
	sideBySide(t)
	d := startDaemon(t)
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	d.push(t, file, "s3://"+bucket+"/before").done(t)
	b := openPage(t, d, "")
	b.wait("the list", "row('/before').includes('Done') && text('#level') === 'WORKING'")
	b.expect(failedRequest)
	d.kill()
	b.wait("that it does not answer", "text('#level') === 'NO CONNECTION' && text('#summary').startsWith('The daemon does not answer since ') && document.body.classList.contains('old')")
	b.wait("when it is tried again", "/again in \\d+ s|again now/.test(text('#again'))")
	if title := eval[string](b, "document.title"); !strings.HasPrefix(title, "No connection") {
		t.Errorf("the title is %q", title)
	}
	b.shot("lost")
	d = d.restart(t, "S3DAEMON_LISTEN="+strings.TrimPrefix(d.url, "http://"))
	d.push(t, file, "s3://"+bucket+"/after").done(t)
	b.wait("both", "row('/before').includes('Done') && row('/after').includes('Done') && text('#level') === 'WORKING' && !document.body.classList.contains('old')")

	// One that says nothing is not taken for one that is well, though it holds its connections.
	d.signal(syscall.SIGSTOP)
	b.wait("that it is silent", "text('#level') === 'NO CONNECTION'")
	d.signal(syscall.SIGCONT)
	b.wait("that it speaks again", "text('#level') === 'WORKING'")

	// One that is told to stop says so, and the page holds it up no longer than others do.
	d.signal(syscall.SIGTERM)
	if code := d.wait(); code != 0 {
		t.Errorf("it ended with %d", code)
	}
	b.wait("that it is gone", "text('#level') === 'NO CONNECTION'")
}

// A page whose computer's clock is set goes on, and its ages are right; out of sight it lets
// go of its connection and knows no worse how the daemon is.
func TestPageClockAndSight(t *testing.T) {
	sideBySide(t)
	d := startDaemon(t)
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	d.push(t, file, "s3://"+bucket+"/before").done(t)
	b := openPage(t, d, "")
	b.wait("the list", "row('/before').includes('Done')")
	eval[chromedp.Void](b, "{ const real = Date.now; Date.now = () => real() - 7200_000 }")
	lists := b.requests("/pushes")
	eval[chromedp.Void](b, "takePushes({pushes: [], left_out: 1})")
	waitFor(t, "the list to be asked for", func() bool { return b.requests("/pushes") > lists })
	d.push(t, file, "s3://"+bucket+"/after").done(t)
	b.wait("the age of another", "/\\d s ago/.test(row('/after'))")

	const sight = "Object.defineProperty(document, 'hidden', {configurable: true, value: %v}); document.dispatchEvent(new Event('visibilitychange'))"
	eval[chromedp.Void](b, fmt.Sprintf(sight, true)+"; { const real = performance.now.bind(performance); performance.now = () => real() + 61_000 }")
	b.wait("the connection to be let go of", "stream.signal.aborted")
	eval[chromedp.Void](b, "wake()") // as after half a minute
	waitFor(t, "a look at the daemon", func() bool { return b.requests("/events") == 2 })
	b.wait("the connection to be let go of again, with nothing to be found wrong", "stream.signal.aborted && text('#level') === 'WORKING' && document.title.startsWith('Working')")
	eval[chromedp.Void](b, fmt.Sprintf(sight, false))
	d.push(t, file, "s3://"+bucket+"/seen").done(t)
	b.wait("all once it is seen", "row('/seen').includes('Done') && !stream.signal.aborted")
}

// Behind a proxy the page finds its daemon below the path that it was asked for at, with
// the slash behind it or without; and what answers in its stead is not taken for it.
func TestPageBehindProxy(t *testing.T) {
	sideBySide(t)
	d := startDaemon(t)
	to, err := url.Parse(d.url)
	if err != nil {
		t.Fatal(err)
	}
	var stranger atomic.Bool
	through := http.StripPrefix("/s3", httputil.NewSingleHostReverseProxy(to))
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/s3":
			r.URL.Path = "/s3/"
		case !strings.HasPrefix(r.URL.Path, "/s3/"):
			t.Errorf("the page asks for %s", r.URL.Path)
		case stranger.Load():
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, "<html>Please sign in</html>")
			return
		}
		through.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	b := openTab(t, proxy.URL, "/s3")
	b.wait("the daemon's state, and the list", "text('#summary').startsWith('All is well') && text('#none').includes('"+proxy.URL+"/s3/push')")
	if href := eval[string](b, "document.querySelector('footer a[href$=metrics]').href"); href != proxy.URL+"/s3/metrics" {
		t.Errorf("the metrics are at %s", href)
	}
	stranger.Store(true)
	eval[chromedp.Void](b, "stream.abort(); list.load()")
	b.wait("that it is not the daemon", "text('#summary').startsWith('What answered is not s3daemon') && text('#listWrong').startsWith('What answered is not s3daemon') && document.title.startsWith('No connection')")
	stranger.Store(false)
	b.wait("that it is", "text('#summary').startsWith('All is well')")
}

// Where answers take long, what has been asked for is waited for, however often there is
// a reason to ask anew; and a question that was left does not change the one after it.
func TestPageSlowAnswers(t *testing.T) {
	sideBySide(t)
	p := storeProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	d.push(t, file, "s3://"+bucket+"/there").done(t)
	d.push(t, file, "s3://no-such-bucket/first").refused(t, http.StatusBadGateway, "store_refused")
	p.hold()
	d.pushAsync(t, file, "s3://"+bucket+"/second")
	to, err := url.Parse(d.url)
	if err != nil {
		t.Fatal(err)
	}
	lists, retries := make(chan chan struct{}, 100), make(chan chan struct{}, 100) // requests, each until its channel is closed
	through := httputil.NewSingleHostReverseProxy(to)
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		gate := make(chan struct{})
		switch {
		case r.URL.Path == "/pushes":
			lists <- gate
		case strings.HasSuffix(r.URL.Path, "/retry"):
			retries <- gate
		default:
			close(gate)
		}
		select {
		case <-gate:
		case <-r.Context().Done():
			return
		}
		through.ServeHTTP(w, r)
	}))
	t.Cleanup(slow.Close)
	b := openTab(t, slow.URL, "/")
	next := func(requests chan chan struct{}) chan struct{} {
		t.Helper()
		select {
		case gate := <-requests:
			return gate
		case <-time.After(patience):
			t.Fatal("the page does not ask")
			return nil
		}
	}
	asked := []chan struct{}{next(lists), next(lists)} // at once, and when the stream has begun
	b.wait("that there is no answer yet", "text('#listWrong').startsWith('The daemon has not answered yet.')")
	eval[chromedp.Void](b, "const real = setTimeout; window.setTimeout = (f, ms) => real(f, ms <= 3000 ? 0 : ms); reload(); reload(); new Promise((over) => real(over, 200))")
	close(asked[0])
	close(asked[1])
	b.wait("the list", "row('/there').includes('Done')")
	close(next(lists)) // for there was a reason
	eval[chromedp.Void](b, "takePushes({pushes: [], left_out: 1})")
	close(next(lists))
	b.wait("nothing of that any more", "text('#listWrong') === ''")

	b.expect(failedRequest)
	b.clickIn("/first")
	b.click("#yes")
	gate := next(retries)
	b.click("#no")
	b.clickIn("/second")
	close(gate)
	b.wait("the first answer", "document.querySelector('#outcome').textContent.startsWith('file: ')")
	if words := b.text("#yes"); words != "Cancel it" {
		t.Errorf("the second question has %q", words)
	}
	b.click("#yes")
	p.release() // the cancel asks the store; or the push is done first
	b.wait("the second answer", "!document.querySelector('#confirm').open || text('#yes') === 'Cancel it'")
}

// Names are shown, and never run: neither as HTML, nor so that they look like others.
func TestPageNames(t *testing.T) {
	sideBySide(t)
	d := startDaemon(t)
	bucket := newBucket(t)
	dir := t.TempDir()
	evil := []string{
		`<img src=x onerror="document.title='run'">.fits`, `"><script>document.title='run'<` + `.fits`, "javascript:alert(1).fits",
		"\u202egnp.fits", "zero\u200bwidth.fits", "tag\U000e0041.fits", "größe 文 🔭.fits", "two  spaces.fits", strings.Repeat("x", 250) + ".fits",
	}
	for _, name := range evil {
		file := makeFileIn(t, dir, name, 100)
		if a := d.pushAs(t, wish{label: "<b>" + name[:min(len(name), 40)]}, file, "s3://"+bucket+"/"+name); a.status != http.StatusOK {
			t.Fatalf("%q: %d: %s", name, a.status, a.body)
		}
	}
	b := openPage(t, d, "")
	b.wait("all of them", fmt.Sprintf("document.querySelectorAll('#rows tr').length === %d", len(evil)))
	words := b.words()
	for _, want := range []string{`<img src=x onerror="document.title='run'">.fits`, "⟨U+202E⟩gnp.fits", "zero⟨U+200B⟩width.fits", "tag⟨U+E0041⟩.fits", "größe 文 🔭.fits", "two  spaces.fits", "<b>javascript:"} {
		if !strings.Contains(words, want) {
			t.Errorf("%q is not shown", want)
		}
	}
	if n := eval[int](b, "document.querySelectorAll('main img, main script, main b b, main a[href^=\"javascript\"]').length"); n != 0 {
		t.Errorf("%d elements were made of names", n)
	}
	b.narrow()
	b.fits("a long name")
	b.fullShot("names-narrow")
	b.desktop()
	for i := range evil {
		b.do(chromedp.Navigate(d.url + "/" + eval[string](b, fmt.Sprintf("document.querySelectorAll('#rows a')[%d].getAttribute('href')", i))))
		b.wait("its own page", "text('#oneState').startsWith('Done') && text('#factsTitle')")
		b.narrow()
		b.fits("a long name on a page of its own")
		b.desktop()
		b.click("#back")
		b.wait("the list", "document.querySelector('#overview').checkVisibility()")
	}
	if title := eval[string](b, "document.title"); strings.Contains(title, "run") {
		t.Errorf("the title is %q", title)
	}
}

// Who does not see the page is told the same: everything that can be operated has a
// name, there are landmarks and headings, and only the verdict speaks by itself.
func TestPageAccessibility(t *testing.T) {
	sideBySide(t)
	p := storeProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	bucket, file := newBucket(t), makeFile(t, "big.fits", 30_000_000)
	d.push(t, makeFile(t, "small", 10), "s3://there-is-no-such-bucket/none").refused(t, http.StatusBadGateway, "store_refused")
	p.holdAfter(8_000_000)
	d.pushAsync(t, file, "s3://"+bucket+"/big.fits")
	b := openPage(t, d, "")
	b.wait("a push that runs, and one that failed", "document.querySelector('#rows progress')?.value > 0 && row('none').includes('Failed')")
	for _, id := range []string{"#poolDetails", "#timesDetails"} {
		eval[chromedp.Void](b, fmt.Sprintf("document.querySelector(%q).open = true", id))
	}
	b.wait("the connections", "document.querySelectorAll('#poolRows tr').length > 0")
	b.shot("connections")
	b.fits("the connections")
	tree := b.accessible()
	tree.named(t, "the overview")
	for _, want := range []string{"main", "banner", "contentinfo", "search", "progressbar", "table", "columnheader", "image", "status"} {
		if len(tree[want]) == 0 {
			t.Errorf("there is no %s", want)
		}
	}
	for _, want := range []struct{ role, name string }{
		{"button", "Cancel big.fits"}, {"button", "Retry small"}, {"progressbar", "Sent of big.fits"}, {"link", "Skip to the state of the daemon"},
		{"combobox", "State"}, {"combobox", "Label"}, {"searchbox", "Text"}, {"heading", "Pushes"}, {"heading", "Throughput"},
	} {
		if !slices.Contains(tree[want.role], want.name) {
			t.Errorf("there is no %s with the name %q; there are %q", want.role, want.name, tree[want.role])
		}
	}
	if live := eval[[]string](b, "[...document.querySelectorAll('[aria-live], [role=status], [role=alert]')].filter((e) => e.closest('#overview, #verdict, header') && e.id !== 'listWrong').map((e) => e.id)"); len(live) > 0 {
		t.Errorf("%q would be read out whenever a number changes", live)
	}

	b.clickIn("big.fits")
	b.wait("the question", "document.querySelector('#confirm').open")
	b.accessible().named(t, "the question")
	b.press(kb.Escape)
	b.click("#rows tr:last-child a")
	b.wait("the push", "text('#oneState').startsWith('Failed')")
	b.accessible().named(t, "the page of a push")

	// By keys alone: the first leads past the header, and all can be reached and seen.
	b.open("/")
	b.wait("the list", "row('big.fits')")
	b.press(kb.Tab)
	if on := eval[string](b, "document.activeElement.id"); on != "skip" {
		t.Errorf("the first thing that a key reaches is %q", on)
	}
	b.press(kb.Enter)
	if on := eval[string](b, "document.activeElement.id + ' ' + location.hash"); on != "main " {
		t.Errorf("the way past the header leads to %q", on)
	}
	b.tabTo("#rows button")
	if outline := eval[string](b, "getComputedStyle(document.activeElement).outlineStyle + ' ' + getComputedStyle(document.activeElement).outlineWidth"); outline != "solid 3px" {
		t.Errorf("what has the focus is outlined by %q", outline)
	}
	p.release()
	b.open("/")
	b.wait("it to be done", "row('big.fits').includes('Done')")
	b.prefers("prefers-reduced-motion", "reduce")
	if moving := eval[int](b, "document.getAnimations().length"); moving != 0 {
		t.Errorf("%d things move", moving)
	}
}

// tree is what a screen reader is told of a page: the names of what there is, by roles.
type tree map[string][]string

func (b *tab) accessible() tree {
	b.t.Helper()
	full, err := chromedp.Call(b.ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	if err != nil {
		b.t.Fatal(err)
	}
	all := make(tree)
	text := func(v *accessibility.Value) (s string) {
		if v != nil {
			_ = json.Unmarshal(v.Value, &s) // what is no text has no name
		}
		return s
	}
	for _, node := range full.Nodes {
		if !node.Ignored {
			role := text(node.Role)
			all[role] = append(all[role], text(node.Name))
		}
	}
	return all
}

// named fails the test where something that needs a name has none.
func (a tree) named(t *testing.T, where string) {
	t.Helper()
	for _, role := range []string{"button", "link", "textbox", "searchbox", "combobox", "checkbox", "progressbar", "image", "img", "table", "form", "search", "region", "dialog", "heading", "columnheader", "DisclosureTriangle"} {
		for _, name := range a[role] {
			if strings.TrimSpace(name) == "" {
				t.Errorf("%s has a %s without a name", where, role)
			}
		}
	}
	if n := len(a["main"]) + len(a["dialog"]); n != 1 { // behind a question there is nothing else
		t.Errorf("%s has %d mains and questions", where, n)
	}
}

// What the daemon had no room for is told also when there is room again, since nobody but
// its callers can push it once more.
func TestPageRefused(t *testing.T) {
	sideBySide(t)
	p := storeProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_QUEUE_LIMIT=1")
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	b := openPage(t, d, "")
	if eval[bool](b, "document.querySelector('#refusedBox').checkVisibility()") {
		t.Error("nothing was refused, and that is shown")
	}
	p.hold()
	d.pushAsync(t, file, "s3://"+bucket+"/one")
	d.push(t, file, "s3://"+bucket+"/other").refused(t, http.StatusTooManyRequests, "queue_full")
	d.push(t, file+" none", "s3://"+bucket+"/none").refused(t, http.StatusTooManyRequests, "queue_full")
	p.release()
	d.barrier(t, "")
	d.push(t, file+" none", "s3://"+bucket+"/none").refused(t, http.StatusNotFound, "file_not_found")
	b.wait("the refusals", "text('#summary').startsWith('2 pushes were refused in the last 15 minutes, the last since the queue was full') && text('#refused') === '2' && document.querySelector('#refusedBox').checkVisibility() && text('#since').endsWith('; 2 refused, for want of room.')")
	b.shot("refused")
}

// A page that is open for an hour is as large as it was: neither elements nor memory
// grow with what the stream brings. And with however many pushes there are it asks for
// a page of them, and not often.
func TestPageOpenForLong(t *testing.T) {
	d := startDaemon(t)
	document := d.get(t, "/")
	at := time.Now().UTC().Format(time.RFC3339)
	status := `{"at":%q,"version":"1","started_at":%[1]q,"level":"well","summary":"All is well: frame %d.","advice":"","deadline_seconds":7,` +
		`"store":{"url":"http://127.0.0.1","reachable":true},"throughput":{"bytes_per_second":1e8,"pushes_per_second":1000},` +
		`"queue":{"queued":{"pushes":3,"oldest_seconds":1},"running":{"pushes":2,"oldest_seconds":1},"retrying":0},` +
		`"last_15_minutes":{"done":%[2]d,"failed":1,"cancelled":0,"refused":0,"late":2,"bytes":5},"since_start":{"done":9,"failed":1,"cancelled":0,"refused":0,"late":2,"bytes":5},"failures":[],"failures_left_out":0,` +
		`"times":{"bounds_seconds":[1,7],"pushes":[%[2]d,3,2]},"pool":{"slots":25,"slots_in_use":3,"connections":[` +
		`{"number":0,"address":"127.0.0.1:1","state":"busy","age_seconds":%[2]d,"requests":%[2]d,"rtt_seconds":0.1,"rate_bytes_per_second":1e6,"first_round_trip_bytes":1e4,"warm":true}]},"troubles":[]}`
	receipt := `{"id":"01a2099f-a374-7d75-988c-%012d","state":"done","file":"/data/%[1]d.fits","destination":"s3://raw/%[1]d.fits","bucket":"raw","key":"%[1]d.fits",` +
		`"size":1000,"attempts":1,"parts":1,"accepted_at":%[2]q,"seconds":0.5,"label":"night%[1]d"}`
	zeros := "[" + strings.TrimSuffix(strings.Repeat("0,", 180), ",") + "]"
	const frames = 5000
	var frame, lists atomic.Int64 // the last one that was sent; how often the list was asked for
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", document.header.Get("Content-Security-Policy"))
		w.Write(document.body)
	})
	mux.HandleFunc("GET /pushes", func(w http.ResponseWriter, r *http.Request) {
		lists.Add(1)
		if r.URL.Query().Get("limit") != "50" {
			t.Errorf("the page asks for %s", r.URL.RawQuery)
		}
		var newest []string
		for i := range int64(50) {
			newest = append(newest, fmt.Sprintf(receipt, max(0, 2*frame.Load()+1-i), at))
		}
		fmt.Fprintf(w, `{"pushes":[%s],"next":"01a2099f-a374-7d75-988c-000000000000","pending":0}`, strings.Join(newest, ","))
	})
	more := make(chan struct{})
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		send := func(i int64) {
			frame.Store(i)
			fmt.Fprintf(w, "id: %d\nevent: status\ndata: %s\n\n", i+1, fmt.Sprintf(status, at, i))
			fmt.Fprintf(w, "id: %d\nevent: pushes\ndata: {\"pushes\":[%s,%s],\"left_out\":7}\n\n", i+1, fmt.Sprintf(receipt, 2*i+1, at), fmt.Sprintf(receipt, 2*i, at))
			if i%5 == 0 {
				fmt.Fprintf(w, "event: history\ndata: {\"until\":%q,\"step_seconds\":5,\"bytes_per_second\":%s,\"done_per_second\":%[2]s,\"failed_per_second\":%[2]s}\n\n", at, zeros)
			}
			w.(http.Flusher).Flush()
		}
		hold := func(i int64, until <-chan struct{}) bool {
			for {
				select {
				case <-until:
					return true
				case <-r.Context().Done():
					return false
				case <-time.After(time.Second): // as the page wants it
					send(i)
				}
			}
		}
		for i := range int64(frames) {
			send(i)
			if i == frames/10 && !hold(i, more) {
				return
			}
		}
		hold(frames-1, nil)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close) // after the tab, which holds a connection
	begun := time.Now()
	b := openTab(t, server.URL, "/")
	eval[chromedp.Void](b, "document.querySelector('#poolDetails').open = true")
	b.wait("some frames", fmt.Sprintf("text('#summary') === 'All is well: frame %d.' && document.querySelectorAll('#rows tr').length === 50", frames/10))
	nodes, heap := b.used()
	close(more)
	b.wait("all frames", fmt.Sprintf("text('#summary') === 'All is well: frame %d.'", frames-1))
	b.wait("the newest", fmt.Sprintf("row('/%d.fits') && document.querySelectorAll('#rows tr').length === 50", 2*frames-1))
	laterNodes, laterHeap := b.used()
	t.Logf("%d nodes and %d KB, then %d and %d", nodes, heap>>10, laterNodes, laterHeap>>10)
	if laterNodes > nodes+nodes/10 {
		t.Errorf("%d nodes are %d after %d frames", nodes, laterNodes, frames)
	}
	if laterHeap > heap+4<<20 { // the stream has brought twice as much, as text
		t.Errorf("%d KB of JavaScript's memory are %d after %d frames", heap>>10, laterHeap>>10, frames)
	}
	if n, most := lists.Load(), 3+int64(time.Since(begun).Seconds()/3); n > most {
		t.Errorf("the page asked for the list %d times in %v, want %d at most", n, time.Since(begun), most)
	}
}

// used returns how many nodes a page has, and how many bytes its scripts use, of those
// that are not garbage.
func (b *tab) used() (nodes, heap int64) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, heapprofiler.CollectGarbage, struct{}{})
	if err != nil {
		b.t.Fatal(err)
	}
	dom, err := chromedp.Call(b.ctx, memory.GetDOMCounters, struct{}{})
	if err != nil {
		b.t.Fatal(err)
	}
	usage, err := chromedp.Call(b.ctx, runtime.GetHeapUsage, struct{}{})
	if err != nil {
		b.t.Fatal(err)
	}
	return dom.Nodes, int64(usage.UsedSize)
}

// A history of 100,000 pushes does not slow the page: the list, a search that finds one,
// one that finds nothing.
func TestPageLongHistory(t *testing.T) {
	const pushes = 100_000
	dir := t.TempDir()
	if out, err := exec.Command(binaryPath(t, "history"), dir, fmt.Sprint(pushes)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	d := startDaemon(t, "S3DAEMON_DATA_DIR="+dir, fmt.Sprintf("S3DAEMON_HISTORY_COUNT=%d", pushes+10))
	b := openPage(t, d, "")
	b.wait("the newest", "document.querySelectorAll('#rows tr').length === 50 && row('099999.fits')")
	if n := eval[int](b, "document.querySelectorAll('*').length"); n > 2000 {
		t.Errorf("the document has %d elements", n)
	}
	for _, search := range []struct {
		text string
		rows int
	}{{"_000007.fits", 1}, {"there is no such thing", 0}, {"R07_S07", 50}} {
		begun := time.Now()
		a := d.get(t, "/pushes?limit=50&text="+strings.ReplaceAll(search.text, " ", "+"))
		t.Logf("%q: %v, %d bytes", search.text, time.Since(begun), len(a.body))
		eval[chromedp.Void](b, "document.querySelector('#byText').select()")
		b.do(chromedp.KeyEvent(search.text))
		b.wait("what is searched for", fmt.Sprintf("document.querySelectorAll('#rows tr').length === %d && location.hash.includes('text=')", search.rows))
	}
	b.wait("what was found, and nothing else", "[...document.querySelectorAll('#rows tr')].every((r) => r.innerText.includes('r07_s07'))")
	b.click("#older")
	b.wait("the next page", "document.querySelector('#newest').checkVisibility() && document.querySelectorAll('#rows tr').length === 50")
	b.shot("long-history")
}
