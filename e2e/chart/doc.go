// Package chart tests the Helm chart of s3daemon without a cluster: what helm
// would make of it is made with helm's own packages, and looked at. It is a
// module of its own, for helm and Kubernetes bring hundreds of packages.
//
// A row of the matrix is a file of values in testdata/matrix; what becomes of it
// is in testdata/golden, and go test -update writes that anew. So a change of
// the chart shows in a change of these files. What must hold of every row
// whatever the files say is a rule (rules_test.go), and each rule has been seen
// to fail (broken_test.go). testdata/refusals.yaml has the values that must be
// refused, and with what words.
//
// The rows of the chart "writer" are of the example in helm/examples/writer: a
// writer's own chart, which has that of s3daemon as a dependency.
package chart
