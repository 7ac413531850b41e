module github.com/lsst-dm/s3daemon

go 1.26
