"""What the page says in words: when to prefer which library, and why one is where it is."""

from __future__ import annotations

PREFER = {
    "kronfluence": (
        "a network of Linear and Conv2d layers too large for one device: it shards factors and "
        "scores over data, modules and GPUs, runs in half precision, and takes one task class. Its "
        "EK-FAC is the reference implementation."
    ),
    "dattri": (
        "comparing many attribution methods by one interface, or LoGra and its relatives on GPUs, "
        "where its projections have CUDA kernels; it hosts retrained ground truth for six data "
        "sets."
    ),
    "pydvl": (
        "data valuation (Shapley, least core, out-of-bag) beside influence, Dask clusters, or "
        "mixing block structures and solvers freely; its block CG is exact."
    ),
    "captum": (
        "models that captum explains already, and TracIn over saved checkpoints, which needs no "
        "curvature and almost no time."
    ),
    "traker": (
        "many trained checkpoints on a GPU, whose ensemble is what TRAK was designed for; a "
        "single checkpoint on a CPU, as here, is not its ground."
    ),
    "curvlinops": (
        "research on curvature itself: it gives operators (Hessian, GGN, Fisher, KFAC, spectra) "
        "and leaves the use to you."
    ),
    "cleanlab": (
        "finding label errors with any classifier that predicts probabilities, whatever its "
        "form: it needs no gradients, but trains five times more."
    ),
    "pyinfluence": (
        "a small package, without torch, for linear models of two classes or a number whose "
        "preprocessing is fixed, and for Banzhaf values and bootstraps of any estimator."
    ),
    "bergson": (
        "language models from the Hugging Face hub on GPUs, up to many nodes, with indices on disk."
    ),
}

WHY = {
    ("captum", "TracInCPFast"): "inverts no curvature: products of last-layer gradients only",
    ("captum", "Arnoldi"): "keeps 50 directions of the Hessian and ignores all others",
    ("traker", "TRAK-512"): "projects gradients to 512 numbers",
    ("dattri", "TRAK-512"): "projects gradients to 512 numbers",
    ("dattri", "LoGra"): "projects each layer's gradients",
    ("dattri", "CG, 10 steps"): "stops before it converges",
    ("dattri", "EK-FAC"): "applies its eigenvectors transposed in version 0.3.0",
    ("kronfluence", "EK-FAC"): "takes inputs and errors of a layer as independent",
    ("kronfluence", "K-FAC"): "takes inputs and errors of a layer as independent",
    ("curvlinops", "EK-FAC"): "takes inputs and errors of a layer as independent",
    ("curvlinops", "K-FAC"): "takes inputs and errors of a layer as independent",
    ("pyinfluence", "influence functions"): "gives the same first order, and no error of it",
    ("pydvl", "EK-FAC"): "takes inputs and errors of a layer as independent",
    ("pydvl", "Nyström, rank 100"): "keeps 100 directions of the Hessian",
}

SETUP = {
    "w1": (
        "55,000 digits, p = 7,840, l2 = 0.01, no intercept. One query is test image 8; 100 and "
        "1,000 are the first of the test images; each is scored against all training examples. The "
        "truth is exact influence: the Hessian in float64, dense, factored. Correlations are "
        "computed per query over **all** 55,000 examples and averaged (Spearman over the first 50 "
        "queries); the last column is the correlation with 500 leave-one-out retrainings of the "
        "most influential examples of test image 8, which flatters everyone."
    ),
    "w2": (
        "5,000 digits, 784-256-128-10 with ReLU, SGD with momentum; 200 queries. The truth is "
        "retraining on 60 random halves with two seeds each; LDS is the mean rank correlation of "
        "predicted and actual losses, with its bootstrap interval. A perfect predictor would reach "
        "the ceiling."
    ),
    "w3": (
        "2,000 training and 50 query sequences of 128 characters; 4 layers, 128 wide. Libraries "
        "differ in which parameters they cover: whence covers all, and the linear layers alone "
        "where the row says so; its peers cover the linear layers. LDS is shown where the "
        "leaderboard's ensemble was at hand."
    ),
    "w6": (
        "5,000 images of CIFAR-10 and 100 queries, a ResNet with group norm and three blocks. LDS "
        "is shown where the leaderboard's ensemble was at hand."
    ),
    "w4": (
        "4,137 mails, 39,918 words, sparse counts; binary logistic regression with l2 = 1e-4. A "
        "tenth of the labels is flipped, three times over; numbers are their means. A library "
        "that takes no sparse rows is given dense ones."
    ),
    "w8": (
        "Ten tables that packages ship, 303 to 20,190 rows, 20 held-out queries each: five "
        "logistic and five ridge regressions of scikit-learn on columns prepared once. The truth "
        "is scikit-learn refitted without each row (500 random ones above 1,000 rows). "
        "Correlations are means over the queries of a table, then over the tables."
    ),
    "w5": (
        "The truth itself: what does it cost to retrain? Loops are measured for a few retrainings, "
        "whence for all it does in one call; times are per retraining."
    ),
}
