"""scikit-learn's MLPClassifier: a call of partial_fit with one batch is one step."""

from bench.contenders.base import Contender, peer
from bench.problem import BETA1, BETA2, EPSILON, Parameters, Problem


class ScikitLearn(Contender):
    """With a label matrix, it uses sigmoid outputs and the cross-entropy: the same arithmetic.

    Momentum, L2 and shuffling are off, and a step is the whole batch. It also checks the batch and computes the cost.
    """

    label = "scikit-learn"
    distributions = ("scikit-learn",)

    def __init__(self, problem: Problem) -> None:
        networks = peer("sklearn.neural_network", "scikit-learn")
        X, Y = problem.batch()
        self.X, self.Y = X, Y.astype(int)
        self.net = networks.MLPClassifier(
            hidden_layer_sizes=problem.size.widths[1:-1],
            activation="relu" if problem.activation == "relu" else "logistic", solver=problem.optimizer,
            alpha=0.0, batch_size=len(X), learning_rate_init=problem.learning_rate,
            momentum=0.0, nesterovs_momentum=False, beta_1=BETA1, beta_2=BETA2, epsilon=EPSILON, shuffle=False,
            random_state=0,
        )  # fmt: skip
        self.net.partial_fit(self.X, self.Y, classes=range(Y.shape[1]))  # allocates; the parameters are replaced below
        del self.net._optimizer  # discards the state after this step
        for i, (W, b) in enumerate(problem.parameters()):
            self.net.coefs_[i][...] = W.T
            self.net.intercepts_[i][...] = b

    def step(self) -> None:
        self.net.partial_fit(self.X, self.Y)

    def parameters(self) -> Parameters:
        return [(W.T.copy(), b.copy()) for W, b in zip(self.net.coefs_, self.net.intercepts_, strict=True)]
